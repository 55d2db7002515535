#!/usr/bin/env bash
# A script written for `ollama`, with nothing of ours in it but the alias. It wants a server that has the model $MODEL,
# and runs with the original as well: COMMAND=ollama MODEL=some-model tests/scripts/ollama_script.sh
set -euo pipefail
shopt -s expand_aliases
alias ollama='${COMMAND:-moellama}'
MODEL=${MODEL:-demo-moe}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

contains() { # text, part
  [[ $1 == *"$2"* ]] || fail "no '$2' in: $1"
}

echo "== version"
contains "$(ollama --version)" "ollama version is "

echo "== run with a prompt"
answer=$(ollama run "$MODEL" --think=false --nowordwrap "Say hello.")
[[ -n $answer ]] || fail "an empty answer"
[[ $answer != *$'\e'* ]] || fail "escape sequences in a pipe"

echo "== run with a prompt from a pipe, and from a file"
[[ -n $(echo "Say hello." | ollama run "$MODEL" --think=false) ]] || fail "an empty answer to a pipe"
echo "The fox sleeps." >text.txt
[[ -n $(ollama run "$MODEL" --think=false "Repeat this:" <text.txt) ]] || fail "an empty answer to a file"

echo "== run with a here-document, and with a prompt and a pipe together"
answer=$(
  ollama run "$MODEL" --think=false <<EOF
Tell me about
a fox.
EOF
)
[[ -n $answer ]] || fail "an empty answer to a here-document"
answer=$(ollama run "$MODEL" --think=false "One word:" <<<"hello" | tr -d '\n')
[[ -n $answer ]] || fail "an empty answer to a here-string"

echo "== json"
ollama run "$MODEL" --think=false --format json "A person as JSON" >person.txt
grep -q '^[[:space:]]*{' person.txt || fail "no object: $(cat person.txt)"

echo "== answers in a loop, in the background, and cut off by head"
for word in fox owl; do
  [[ -n $(ollama run "$MODEL" --think=false "A $word." </dev/null) ]] || fail "an empty answer in a loop"
done
ollama run "$MODEL" --think=false "A story." >background.txt </dev/null &
wait $! || fail "a run in the background"
[[ -s background.txt ]] || fail "an empty answer in the background"
ollama run "$MODEL" --think=false "A long story." </dev/null | head -c 1 >/dev/null || true

echo "== thinking"
thought=$(ollama run "$MODEL" --think --nowordwrap "What is 2 and 2?" 2>/dev/null)
hidden=$(ollama run "$MODEL" --think --hidethinking --nowordwrap "What is 2 and 2?" 2>/dev/null)
[[ $hidden != *"Thinking..."* ]] || fail "thinking is not hidden: $hidden"
[[ -n $thought && -n $hidden ]] || fail "no answer after thinking"

echo "== statistics go to stderr"
ollama run "$MODEL" --think=false --verbose "Hi" >answer.txt 2>statistics.txt
grep -q 'total duration: ' statistics.txt || fail "no statistics: $(cat statistics.txt)"
grep -q '^eval rate: .* tokens/s$' statistics.txt || fail "no rate: $(cat statistics.txt)"
! grep -q 'duration' answer.txt || fail "statistics in the answer"

echo "== create -f"
cat >Modelfile <<EOF
# a model with a manner
FROM $MODEL
SYSTEM """You answer in one sentence.
You are kind."""
PARAMETER temperature 0
PARAMETER num_predict 16
PARAMETER stop "###"
MESSAGE user Who are you?
MESSAGE assistant I am a fox.
EOF
ollama create script-model -f Modelfile 2>create.txt
grep -q '^success' create.txt || fail "create said: $(cat create.txt)"
first=$(ollama run script-model --think=false "Tell me a story.")
second=$(ollama run script-model --think=false "Tell me a story.")
[[ $first == "$second" ]] || fail "two greedy answers differ: '$first', '$second'"

echo "== list | awk"
names=$(ollama list | awk 'NR > 1 { print $1 }')
contains "$names" "script-model:latest"
[[ $(ollama list | awk 'NR == 1 { print $1, $2, $3, $4 }') == "NAME ID SIZE MODIFIED" ]] || fail "the header of list"
[[ $(ollama list script-model | awk 'NR > 1 { print $3 $4 }') =~ ^[0-9.]+[KMG]?B$ ]] || fail "the size in list"
[[ $(ollama ls script | awk 'NR > 1 { print length($2) }') == 12 ]] || fail "the id in list"

echo "== ps"
running=$(ollama ps | awk 'NR > 1 { print $1 }')
contains "$running" ":latest" # models of one file share a runner, under the name it was loaded by
[[ $(ollama ps | head -n 1 | xargs) == "NAME ID SIZE PROCESSOR CONTEXT UNTIL" ]] || fail "the header of ps"

echo "== show"
modelfile=$(ollama show script-model --modelfile)
contains "$modelfile" "# FROM script-model:latest"
contains "$modelfile" "PARAMETER num_predict 16"
contains "$modelfile" "PARAMETER stop ###"
contains "$modelfile" "MESSAGE assistant I am a fox."
[[ $(ollama show --system script-model) == $'You answer in one sentence.\nYou are kind.' ]] || fail "the system message"
[[ $(ollama show --parameters script-model | awk '$1 == "num_predict" { print $2 }') == 16 ]] || fail "the parameters"
[[ $(ollama show script-model | awk '$1 == "architecture" { print $2 }') == qwen3moe ]] || fail "the architecture"
contains "$(ollama show script-model | sed -n '/Capabilities/,/^$/p')" "completion"

echo "== a model made from what show printed"
ollama show script-model --modelfile >Again
ollama create script-again -f Again 2>/dev/null
[[ $(ollama run script-again --think=false "Tell me a story.") == "$first" ]] || fail "the copy answers otherwise"

echo "== cp, stop, rm"
[[ $(ollama cp script-model script-copy) == "copied 'script-model' to 'script-copy'" ]] || fail "cp"
for name in $running; do ollama stop "$name"; done
for _ in $(seq 50); do
  still=$(ollama ps | awk 'NR > 1 && !/Stopping\.\.\./ { print $1 }')
  [[ -n $still ]] || break
  sleep 0.1
done
[[ -z $still ]] || fail "still running: $still"
[[ $(ollama rm script-copy script-again script-model) == "deleted 'script-copy'"$'\n'"deleted 'script-again'"$'\n'"deleted 'script-model'" ]] ||
  fail "rm"
! ollama list | grep -q '^script-' || fail "models are left: $(ollama list)"

echo "== errors"
if ollama show script-model 2>error.txt; then fail "show of a missing model ended well"; fi
[[ $(cat error.txt) == "Error: model 'script-model:latest' not found" ]] || fail "show said: $(cat error.txt)"
if ollama rm script-model >/dev/null 2>&1; then fail "rm of a missing model ended well"; fi
if ollama stop script-model 2>error.txt; then fail "stop of a missing model ended well"; fi
contains "$(cat error.txt)" "Error: couldn't find model \"script-model\" to stop"
if ollama create script-model -f <(echo "BAD x") 2>error.txt; then fail "create from nonsense ended well"; fi
contains "$(cat error.txt)" "Error: (line 1): command must be one of "
if ollama run script-none:nothing "hi" >/dev/null 2>error.txt </dev/null; then fail "run of a missing model ended well"; fi
grep -q '^Error: ' error.txt || fail "run said: $(cat error.txt)"
if ollama cp script-none script-other 2>error.txt; then fail "cp of a missing model ended well"; fi
[[ $(cat error.txt) == 'Error: model "script-none" not found' ]] || fail "cp said: $(cat error.txt)"
if ollama nonsense 2>error.txt; then fail "an unknown command ended well"; fi
contains "$(cat error.txt)" 'Error: unknown command "nonsense" for '
if ollama list --nonsense 2>error.txt; then fail "an unknown flag ended well"; fi
contains "$(cat error.txt)" 'Error: unknown flag: --nonsense'
if ollama run 2>error.txt </dev/null; then fail "run without a model ended well"; fi
contains "$(cat error.txt)" 'Error: requires at least 1 arg(s), only received 0'
if OLLAMA_HOST=127.0.0.1:1 ollama list 2>error.txt; then fail "list without a server ended well"; fi
contains "$(cat error.txt)" "Error: could not connect to ollama server, run 'ollama serve' to start it"

echo "all well"
