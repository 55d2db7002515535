# Completion of PROGRAM for bash. Load it with:  source <(PROGRAM completion bash)
# or for every shell:  PROGRAM completion bash > ~/.local/share/bash-completion/completions/PROGRAM

_PROGRAM() {
    local line=${COMP_LINE:0:COMP_POINT} current candidate directive=4 prefix=
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[${#words[@]} - 1]}
    # bash has words end at colons and equal signs: what stands before the last one is on the line already
    [[ $current == *[:=]* ]] && prefix=${current%"${current##*[:=]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate =~ ^:[0-9]+$ ]]; then
            directive=${candidate#:}
        elif [[ $candidate == "$current"* ]]; then
            COMPREPLY+=("${candidate#"$prefix"}")
        fi
    done < <(PROGRAM __complete "${words[@]:1}" 2>/dev/null)
    if ((${#COMPREPLY[@]} == 0 && (directive & 4) == 0)); then
        compopt -o default 2>/dev/null
    fi
}

complete -F _PROGRAM PROGRAM
