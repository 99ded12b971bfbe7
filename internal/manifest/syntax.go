package manifest

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// syntaxError says what the parser said of doc, with the line where there is something to
// correct. The parser's own line is that, one before, or that of the mapping around it.
func (l *loader) syntaxError(f *file, doc document, err error) {
	data := yamlOfJSON(doc.data)
	text, _ := parserSays(err)
	line, remedy := firstBrokenLine(data, text), "correct the YAML here or in the line above"
	switch {
	case strings.HasPrefix(text, "did not find expected ',' or"):
		line = openedIn(data, 0)
		remedy = "correct what stands between the brackets that begin in this line; values with ?, : or # in them need quotes"
	case text == "found unexpected end of stream":
		line, remedy = openedIn(data, 1), "close the quote that begins in this line"
	case strings.Contains(text, "tab") || strings.Contains(text, "cannot start any token"):
		remedy = "indent with spaces, and quote values that begin with a special character"
	}
	if bytes.Contains(doc.data, []byte("{{")) {
		remedy = "this looks like a template; give what it makes, as of helm template"
	}
	l.diags = append(l.diags, Diagnostic{File: f.name, Line: doc.line + line - 1, Problem: "is not YAML: " + text, Remedy: remedy})
}

// firstBrokenLine is the number of the line, from 1, with which data begins to have the
// error: the lines before it alone do not have it.
func firstBrokenLine(data []byte, text string) int {
	lines := slices.Collect(bytes.Lines(data))
	ends := make([]int, len(lines))
	for i, end := 0, 0; i < len(lines); i++ {
		end += len(lines[i])
		ends[i] = end
	}
	before := sort.Search(max(0, len(lines)-1), func(i int) bool {
		got, _ := parserSays(parse(bytes.NewReader(data[:ends[i]])))
		return got == text
	})
	return before + 1
}

// openedIn is the number of the line, from 1, in which begins what data lacks the end
// of. The parser tells that line, but for the first one, so that another one is
// written before it; base is the number that it gives to the first line, which depends on the
// part of it that complains.
func openedIn(data []byte, base int) int {
	_, line := parserSays(parse(io.MultiReader(strings.NewReader("\n"), bytes.NewReader(data))))
	return max(1, line-base)
}

// parse returns the error of the documents of r, if any.
func parse(r io.Reader) error {
	dec := yaml.NewDecoder(r)
	for {
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

var yamlErrorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parserSays splits an error of the parser; line is 0 if it has none.
func parserSays(err error) (text string, line int) {
	if err == nil {
		return "", 0
	}
	text = err.Error()
	if m := yamlErrorLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		line, _ = strconv.Atoi(m[1])
	}
	return text, line
}
