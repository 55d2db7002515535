// Fills in what Ollama's template package makes of the cases of ../ollama_template.json. In a checkout of
// github.com/ollama/ollama (tried at fb30760996871fa9460115c753afd2c60d4ab0f7), with this file as golden/main.go:
//
//	go run ./golden < ollama_template.json > new.json
//
// A case has `template`, `messages`, `tools`, `prompt`, `suffix` and `think`; `output`, `error` and `tags` (around thinking)
// are computed here. Addresses in the output become 0xc000000000.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/template"
	"github.com/ollama/ollama/thinking"
)

type input struct {
	Template       string
	Messages       []api.Message
	Tools          api.Tools
	Prompt, Suffix string
	Think          *api.ThinkValue
}

var address = regexp.MustCompile(`0x[0-9a-f]{9,12}`)

func answer(c *input) (output, fault string, tags []string) {
	t, err := template.Parse(c.Template)
	if err != nil {
		return "", err.Error(), nil
	}
	opening, closing := thinking.InferTags(t.Template)
	v := template.Values{Messages: c.Messages, Tools: c.Tools, Prompt: c.Prompt, Suffix: c.Suffix, IsThinkSet: c.Think != nil}
	if c.Think != nil {
		v.Think, v.ThinkLevel = c.Think.Bool(), c.Think.String()
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return "", err.Error(), []string{opening, closing}
	}
	return address.ReplaceAllString(b.String(), "0xc000000000"), "", []string{opening, closing}
}

func main() {
	var cases []map[string]json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	encode := func(v any) []byte {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			panic(err)
		}
		return bytes.TrimSpace(b.Bytes())
	}
	var lines []string
	for _, c := range cases {
		var in input
		if err := json.Unmarshal(encode(c), &in); err != nil {
			panic(err)
		}
		output, fault, tags := answer(&in)
		c["output"], c["error"], c["tags"] = encode(output), encode(fault), encode(tags)
		lines = append(lines, string(encode(c)))
	}
	fmt.Printf("[\n%s\n]\n", strings.Join(lines, ",\n"))
}
