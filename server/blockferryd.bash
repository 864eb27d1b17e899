# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for blockferryd and blockferry-nbd: options from --help, and
# what the program itself lists of objects and character devices.

_blockferry_options() {
    "$1" --help 2>/dev/null |
        sed -nE 's/^ +((-[a-zA-Z], +)?--[a-z-]+=?).*/\1/p' |
        tr ', ' '\n' | sort -u
}

_blockferryd() {
    local cur prev
    _init_completion -n =, 2>/dev/null || {
        cur=${COMP_WORDS[COMP_CWORD]}
        prev=${COMP_WORDS[COMP_CWORD - 1]}
    }
    case $prev in
    --object)
        if [[ $cur == *,* ]]; then
            mapfile -t COMPREPLY < <(compgen -P "${cur%,*}," -W "id= $(
                "$1" --object "${cur%%,*},help" 2>/dev/null |
                    sed -n 's/^  \([a-z_-]*=\).*/\1/p')" -- "${cur##*,}")
        else
            mapfile -t COMPREPLY < <(compgen -S , -W "$(
                "$1" --object help 2>/dev/null | sed -n 's/^  //p')" -- "$cur")
        fi
        compopt -o nospace
        ;;
    --chardev)
        mapfile -t COMPREPLY < <(compgen -S , -W "$(
            "$1" --chardev help 2>/dev/null | sed -n 's/^  //p')" -- "$cur")
        compopt -o nospace
        ;;
    *)
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_blockferry_options "$1")" \
                -- "$cur")
            [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            compopt -o filenames
        fi
        ;;
    esac
}

complete -F _blockferryd blockferryd blockferry-nbd
