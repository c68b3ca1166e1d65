package cloudtrailtest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func scanAll(b []byte) error {
	s := scanner{data: b}
	if err := s.skip(s.next()); err != nil {
		return err
	}
	return s.end()
}

func TestScanner(t *testing.T) {
	for _, good := range []string{
		`0`, `-0`, `1.5e+3`, `12E0`, `true`, `false`, `null`, `""`, ` [ ] `, `{}`, `[1,[2,{"a":null}]]`, `{"a":1,"a":2}`,
		`"\"\\\/\b\f\n\r\t\u00e4"`, `"ä€😀"`, strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
	} {
		if err := scanAll([]byte(good)); err != nil {
			t.Errorf("%.40s: refused", good)
		}
	}
	for _, bad := range []string{
		``, ` `, `01`, `-`, `1.`, `.5`, `1e`, `+1`, `tru`, `nul`, `"`, `"a`, `"\x"`, `"\u12g4"`, `"\u123"`, "\"\n\"", "\"\xff\"", "\"\xc3\"",
		`[`, `[1,]`, `[1 2]`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{1:2}`, `{"a" 1}`, `1 2`, `[]]`, `"\`,
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
	} {
		if err := scanAll([]byte(bad)); err == nil {
			t.Errorf("%.40s: taken", bad)
		}
	}
}

// The scanner must say what encoding/json says, and read strings as it does.
func FuzzScanner(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.5e3,true,null,"x\u00e4\ud83d\ude00\ud800y\\"]}`, `"\udc00\ud83d"`, `[{},[],""]`, "\"\xff\"", ` 0 `,
		strings.Replace(string(good("a")), "curl", `\u0000`, 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > maxDepth {
			return // encoding/json goes deeper
		}
		want := json.Valid(b) && utf8.Valid(b)
		if got := scanAll(b) == nil; got != want {
			t.Fatalf("got %v, want %v", got, want)
		}
		s := scanner{data: b}
		if !want || s.next() != '"' {
			return
		}
		got, err := s.str()
		var meant string
		if err := json.Unmarshal(b, &meant); err != nil {
			t.Fatal(err)
		}
		if err != nil || got.String() != meant {
			t.Errorf("got %q, %v, want %q", got.String(), err, meant)
		}
	})
}
