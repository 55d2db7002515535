# Completion of PROGRAM for fish. Load it with:  PROGRAM completion fish | source
# or for every shell:  PROGRAM completion fish > ~/.config/fish/completions/PROGRAM.fish

function __PROGRAM_lines
    set -l words (commandline -opc)
    PROGRAM __complete $words[2..] (commandline -ct) 2>/dev/null
end

function __PROGRAM_candidates
    __PROGRAM_lines | string match --invert --regex '^:\d+$'
end

function __PROGRAM_takes_files
    string match --quiet ':0' (__PROGRAM_lines)[-1]
end

complete -c PROGRAM -e
complete -c PROGRAM -f -a '(__PROGRAM_candidates)'
complete -c PROGRAM -F -n __PROGRAM_takes_files
