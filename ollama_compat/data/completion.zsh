#compdef PROGRAM
# Completion of PROGRAM for zsh. Load it with:  source <(PROGRAM completion zsh)
# or for every shell:  PROGRAM completion zsh > "${fpath[1]}/_PROGRAM"

_PROGRAM() {
    local line directive=4
    local -a candidates
    for line in "${(@f)$(PROGRAM __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :<-> ]]; then
            directive=${line#:}
        elif [[ -n $line ]]; then
            # the first plain colon divides a candidate from its description
            candidates+=("${${line%%$'\t'*}//:/\\:}${${line#"${line%%$'\t'*}"}/#$'\t'/:}")
        fi
    done
    (( ${#candidates} )) && _describe -t candidates candidate candidates && return
    (( (directive & 4) == 0 )) && _files
}

if [[ ${funcstack[1]} == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
