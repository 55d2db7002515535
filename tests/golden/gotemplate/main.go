// Fills in what Go's text/template answers to the cases of ../gotemplate.json:
//
//	cd tests/golden/gotemplate && go run main.go < ../gotemplate.json > new.json && mv new.json ../gotemplate.json
//
// A case is [template, name of its data, output, error]; output and error are computed here. Data is JSON in which numbers
// without a point are ints and {"$": type, "v": value} is a value of one of the types below.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
)

type Item struct {
	Name   string   `json:"name"`
	Count  int      `json:"count,omitempty"`
	Price  float64  `json:"price"`
	Tags   []string `json:"tags,omitempty"`
	Any    any
	Inner  *Item `json:"inner,omitempty"`
	hidden string
}

func (i Item) Shout() string { return strings.ToUpper(i.Name) }

type Args map[string]any

func (a Args) String() string { b, _ := json.Marshal(a); return string(b) }

type Names []string

func (n Names) String() string { return strings.Join(n, "+") }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func item(v any) *Item {
	if v == nil {
		return nil
	}
	m := v.(map[string]any)
	i := &Item{Name: m["Name"].(string), hidden: "h"}
	if c, ok := m["Count"]; ok {
		i.Count = c.(int)
	}
	if p, ok := m["Price"]; ok {
		i.Price = p.(float64)
	}
	if t, ok := m["Tags"]; ok {
		i.Tags = texts(t)
	}
	i.Any = m["Any"]
	i.Inner = item(m["Inner"])
	return i
}

func texts(v any) (out []string) {
	if v == nil {
		return nil
	}
	out = []string{}
	for _, s := range v.([]any) {
		out = append(out, s.(string))
	}
	return out
}

func typed(kind string, v any) any {
	switch kind {
	case "strings":
		return texts(v)
	case "names":
		return Names(texts(v))
	case "ints":
		out := []int{}
		for _, n := range v.([]any) {
			out = append(out, n.(int))
		}
		return out
	case "bytes":
		return []byte(v.(string))
	case "texts":
		out := map[string]string{}
		for k, s := range v.(map[string]any) {
			out[k] = s.(string)
		}
		return out
	case "args":
		if v == nil {
			return Args(nil)
		}
		return Args(v.(map[string]any))
	case "item":
		return *item(v)
	case "pointer":
		return item(v)
	case "items":
		out := []*Item{}
		for _, i := range v.([]any) {
			out = append(out, item(i))
		}
		return out
	case "nilmap":
		return map[string]any(nil)
	case "nilslice":
		return []any(nil)
	}
	panic(kind)
}

func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			n, err := v.Int64()
			must(err)
			return int(n)
		}
		f, err := v.Float64()
		must(err)
		return f
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	case map[string]any:
		if kind, ok := v["$"]; ok {
			return typed(kind.(string), plain(v["v"]))
		}
		out := map[string]any{}
		for k := range v {
			out[k] = plain(v[k])
		}
		return out
	}
	return v
}

func run(text string, data any) (string, string) {
	funcs := template.FuncMap{"json": func(v any) string { b, _ := json.Marshal(v); return string(b) }}
	t, err := template.New("").Option("missingkey=zero").Funcs(funcs).Parse(text)
	if err != nil {
		return "", err.Error()
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return "", err.Error()
	}
	return b.String(), ""
}

func main() {
	var file struct {
		Data  json.RawMessage `json:"data"`
		Cases [][]string      `json:"cases"`
	}
	must(json.NewDecoder(os.Stdin).Decode(&file))
	decoder := json.NewDecoder(bytes.NewReader(file.Data))
	decoder.UseNumber()
	var data map[string]any
	must(decoder.Decode(&data))
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	line := func(v any) string {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		must(e.Encode(v))
		return strings.TrimSpace(b.String())
	}
	var rows []string
	for _, c := range file.Cases {
		out, err := run(c[0], plain(data[c[1]]))
		rows = append(rows, line([]string{c[0], c[1], out, err}))
	}
	fmt.Printf("{\"data\":%s,\n\"cases\":[\n%s\n]}\n", line(file.Data), strings.Join(rows, ",\n"))
}
