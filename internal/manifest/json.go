package manifest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// yamlOfJSON makes of a JSON document one that the YAML decoder reads the same
// way: of JSON's escapes (RFC 8259 section 7) YAML 1.1 knows neither \/ nor
// surrogate pairs. Lines stay where they are. Any other document is returned
// as it is.
func yamlOfJSON(doc []byte) []byte {
	if !bytes.HasPrefix(bytes.TrimSpace(doc), []byte("{")) || !json.Valid(doc) {
		return doc
	}
	out := make([]byte, 0, len(doc))
	for i := 0; i < len(doc); {
		switch {
		case doc[i] != '\\':
			out = append(out, doc[i])
			i++
		case doc[i+1] == '/':
			out = append(out, '/')
			i += 2
		case doc[i+1] != 'u':
			out = append(out, doc[i], doc[i+1])
			i += 2
		default:
			r, size := surrogates(doc[i:])
			if size == 0 {
				out = append(out, doc[i:i+6]...)
				i += 6
				continue
			}
			out = utf8.AppendRune(out, r)
			i += size
		}
	}
	return out
}

// surrogates decodes the escaped surrogate at the start of s, with its other
// half if that follows; size 0 means that it is none. A lone half is U+FFFD, as
// encoding/json has it.
func surrogates(s []byte) (r rune, size int) {
	high := escaped(s)
	if !utf16.IsSurrogate(high) {
		return 0, 0
	}
	if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if r := utf16.DecodeRune(high, escaped(s[6:])); r != utf8.RuneError {
			return r, 12
		}
	}
	return utf8.RuneError, 6
}

// escaped is the code unit of \uXXXX at the start of s.
func escaped(s []byte) rune {
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	if err != nil {
		return utf8.RuneError // json.Valid excludes it
	}
	return rune(n)
}
