#!/bin/sh
echo run >> runs.log
say() { echo "{\"score\": $1, \"reason\": \"$2\", \"cost_usd\": 0.001}"; }
wrong() { say 0 "the $1 of the invoice is wrong"; }
check() { if grep -q "$2" "$1" && ! grep -q "$3" "$1"; then say 1 fine; else wrong "$4"; fi; }
case "$(cat "$2")" in
*'"kind": "plain"'*) say 1 fine ;;
*'"kind": "left"'*) if [ -f "$1" ]; then say 0 "it ran out of time"; else say 1 fine; fi ;;
*'"kind": "amount"'*) [ -f "$1" ] || touch "$1"; check "$1" "in euros" "in cents" amount ;;
*'"kind": "date"'*) [ -f "$1" ] || touch "$1"; check "$1" "day first" "month first" date ;;
*'"kind": "name"'*) [ -f "$1" ] || touch "$1"; check "$1" "in capitals" "in italics" name ;;
*) echo broken >&2; exit 3 ;;
esac
