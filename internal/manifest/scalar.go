package manifest

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// YAML words are typed as Kubernetes types them, which is YAML 1.1: yes, no,
// on, off, y and n without quotes are booleans, 0644 is octal. A value that a
// cluster would refuse is refused here too.

func isPlain(n *yaml.Node) bool {
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" || n.Kind == 0
}

// boolean reads the words that YAML 1.1 takes for booleans.
func boolean(n *yaml.Node) (value, ok bool) {
	if n.Kind != yaml.ScalarNode || !isPlain(n) {
		return false, false
	}
	word := n.Value
	if !slices.Contains([]string{strings.ToLower(word), strings.ToUpper(word), title(word)}, word) {
		return false, false
	}
	switch strings.ToLower(word) {
	case "true", "yes", "on", "y":
		return true, true
	case "false", "no", "off", "n":
		return false, true
	}
	return false, false
}

func title(word string) string {
	if word == "" {
		return word
	}
	return strings.ToUpper(word[:1]) + strings.ToLower(word[1:])
}

// integer reads decimal, octal, hexadecimal and binary numbers.
func integer(n *yaml.Node) (int64, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		return 0, false
	}
	i, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64)
	return i, err == nil
}

// scalarValue is what encoding/json writes for n.
func scalarValue(n *yaml.Node) any {
	if b, ok := boolean(n); ok {
		return b
	}
	if i, ok := integer(n); ok {
		return i
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!float", "!!int":
		f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
		if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
	}
	return n.Value
}

// describe says what kind of value n is, for messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch scalarValue(n).(type) {
		case nil:
			return "empty"
		case bool:
			return "the boolean " + shorten(n.Value)
		case int64, float64:
			return "the number " + shorten(n.Value)
		}
		return "the text " + strconv.Quote(shorten(n.Value))
	default:
		return "something else"
	}
}

// shorten cuts a value, so that a message tells it apart and stays one line.
func shorten(s string) string { return shortenTo(s, 60) }

func shortenTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// decodeScalar stores a word in a string, number or boolean.
func (d *decoder) decodeScalar(n *yaml.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.String:
		d.decodeString(n, v, path)
	case reflect.Bool:
		b, ok := boolean(n)
		if !ok {
			d.misfit(n, path, path+" must be true or false, is "+describe(n), "write true or false without quotes")
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64:
		i, ok := integer(n)
		switch {
		case !ok:
			d.misfit(n, path, path+" must be a whole number, is "+describe(n), "write a number without quotes")
		case v.OverflowInt(i):
			d.misfit(n, path, fmt.Sprintf("%s is too large: %d", path, i), "write a smaller number")
		default:
			v.SetInt(i)
		}
	default:
		// No type that is decoded has other fields.
		d.misfit(n, path, path+" cannot be read", "remove it")
	}
}

func (d *decoder) decodeString(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.misfit(n, path, path+" must be text, is "+describe(n), "check the indentation")
		return
	}
	switch value := scalarValue(n).(type) {
	case string:
		v.SetString(value)
	default:
		d.misfit(n, path, path+" must be text, is "+describe(n), "put it in quotes: "+strconv.Quote(shorten(n.Value)))
	}
}

func (d *decoder) decodeBytes(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.misfit(n, path, path+" must be base64 text, is "+describe(n), "check the indentation")
		return
	}
	if _, ok := scalarValue(n).(string); !ok {
		d.misfit(n, path, path+" must be base64 text, is "+describe(n), "put it in quotes: "+strconv.Quote(shorten(n.Value)))
		return
	}
	text := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, n.Value)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		d.misfit(n, path, path+" is not base64", "encode it, or write it as it is under stringData (Secret) or data (ConfigMap)")
		return
	}
	v.SetBytes(data)
}
