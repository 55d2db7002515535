// Answers what Ollama's built-in renderers and parsers make of the cases on stdin, a JSON object a line. In a checkout of
// github.com/ollama/ollama (tried at fb30760996871fa9460115c753afd2c60d4ab0f7), with this file as builtin/main.go:
//
//	go build -o builtin.out ./builtin
//
// and then `python tests/golden/make_builtin.py builtin.out`, which writes ../ollama_renderers.json.xz and ../ollama_parsers.json.
package main

import (
	"bufio"
	"encoding/json"
	"os"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/model/parsers"
	"github.com/ollama/ollama/model/renderers"
)

type input struct {
	Renderer string
	Parser   string
	Messages []api.Message
	Last     *api.Message
	Tools    api.Tools
	Think    *api.ThinkValue
	Pieces   []string
}

type output struct {
	Text      string         `json:"text,omitempty"`
	BOS       string         `json:"bos,omitempty"`
	Error     string         `json:"error,omitempty"`
	Content   string         `json:"content,omitempty"`
	Thinking  string         `json:"thinking,omitempty"`
	Calls     []api.ToolCall `json:"calls,omitempty"`
	Preserved []string       `json:"preserved,omitempty"`
}

func render(c *input) (o output) {
	text, err := renderers.RenderWithRenderer(c.Renderer, c.Messages, c.Tools, c.Think)
	o.Text, o.BOS = text, renderers.LeadingBOSForRenderer(c.Renderer)
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

func parse(c *input) (o output) {
	p := parsers.ParserForName(c.Parser)
	p.Init(c.Tools, c.Last, c.Think)
	o.Preserved = p.PreservedTokens()
	for i := range len(c.Pieces) + 1 {
		piece, done := "", i == len(c.Pieces)
		if !done {
			piece = c.Pieces[i]
		}
		content, thinking, calls, err := p.Add(piece, done)
		o.Content += content
		o.Thinking += thinking
		o.Calls = append(o.Calls, calls...)
		if err != nil {
			o.Error = err.Error()
			break
		}
	}
	return o
}

func main() {
	renderers.RenderImgTags = true
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	answers := json.NewEncoder(os.Stdout)
	answers.SetEscapeHTML(false)
	for lines.Scan() {
		var c input
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			panic(err)
		}
		answer := render
		if c.Parser != "" {
			answer = parse
		}
		if err := answers.Encode(answer(&c)); err != nil {
			panic(err)
		}
	}
}
