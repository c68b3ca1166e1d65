package jsonscan

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// check holds the scanner against encoding/json: what it takes is JSON, and the other way round but for depth.
func check(t *testing.T, raw string) {
	t.Helper()
	p := New(raw)
	v := p.Value()
	ok := p.End()
	if want := json.Valid([]byte(raw)); ok != want && (ok || depthOf(raw) <= MaxDepth) {
		t.Fatalf("taken %v, but JSON %v: %.300q", ok, want, raw)
	}
	if !ok || v.Kind != Text || !utf8.ValidString(raw) {
		return
	}
	var want string
	if err := json.Unmarshal([]byte(raw), &want); err != nil || v.Text() != want {
		t.Fatalf("%.300q is %.300q, want %.300q, %v", raw, v.Text(), want, err)
	}
}

// depthOf is how deep raw may nest at most.
func depthOf(raw string) int { return strings.Count(raw, "[") + strings.Count(raw, "{") }

func TestScanner(t *testing.T) {
	for _, raw := range []string{
		"", " ", "0", "-0", "-", "01", "1.", "1.0", ".5", "1e", "1e+", "1E-9", "-1.25e+10", "+1", "1 2", "Infinity", "NaN", "0x1", "1e5.5",
		"true", "tru", "truex", "false", "null", "nul", "None", `"`, `""`, `"a`, `"\`, `"\"`, `"\x"`, `"\u12"`, `"\u12G4"`, `"\u12aF"`, "\"\x00\"",
		"\"\n\"", "\"\x1f\"", "\"\x7f\"", "\"\xff\"", "'a'", "{}", "{", "}", "[", "]", "[]", "[,]", "[1,]", "[1 2]", "[,1]", "{,}", `{"a"}`, `{"a":}`,
		`{"a":1,}`, `{"a":1 "b":2}`, `{"a" 1}`, `{1:2}`, `{"a":1}}`, `{"a":[}]}`, "[\v1]", "\uFEFF{}", "[1]\x00", "\x00", "/**/1", `"\ud83d\u"`, `"\ud83d\ud8"`,
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
		strings.Repeat(`{"":`, MaxDepth) + "1" + strings.Repeat("}", MaxDepth),
	} {
		check(t, raw)
	}
	p := New(strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1))
	if p.Value(); !p.Failed() {
		t.Error("no depth is too deep")
	}
}

// Text with single bytes changed: what is still taken is JSON.
func TestScannerMutations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const odd = "\"\\{}[],:0123456789.eE+-truefalsn \n\x00\x1f\xff"
	raw := []byte(`{"data":[{"id":"8XsOaNYwXgn0VmgA8qYYpVteu14p9GIK","n":[-1.5e+3,0,true,false,null],"t":"a long text, \"quoted\" and \u00e9\ud83d\ude00 é"},{}],"next":null}`)
	for range 20_000 {
		b := []byte(string(raw))
		for range 1 + r.IntN(3) {
			switch at := r.IntN(len(b)); r.IntN(3) {
			case 0:
				b[at] = odd[r.IntN(len(odd))]
			case 1:
				b = append(b[:at], b[at+1:]...)
			default:
				b = append(b[:at], append([]byte{odd[r.IntN(len(odd))]}, b[at:]...)...)
			}
		}
		check(t, string(b))
	}
}

// Every byte at every place of a word, and after every other.
func TestPlain(t *testing.T) {
	for at := range 8 {
		for before := range 256 {
			for c := range 256 {
				b := []byte("abcdefgh")
				b[at] = byte(c)
				if at > 0 {
					b[at-1] = byte(before)
				}
				want := 8
				for i, c := range b {
					if c < ' ' || c == '"' || c == '\\' {
						want = i
						break
					}
				}
				if got := Plain(Word(string(b))); got != want {
					t.Fatalf("%q: %d, want %d", b, got, want)
				}
				ascii := want == 8 && c < 0x80 && (at == 0 || before < 0x80)
				for _, s := range []string{string(b), string(b[at:]), "12345678" + string(b), string(b) + "x"} {
					if at == 0 || len(s) >= 8 {
						if got := IsPlain(s); got != ascii {
							t.Fatalf("%q: %v", s, got)
						}
					}
				}
			}
		}
	}
}

func TestInteger(t *testing.T) {
	for raw, want := range map[string]int64{
		"0": 0, "-7": -7, "12.9": 12, "1e3": 1000, `"5"`: 5, `"\u0035"`: 5, "9223372036854775807": 1<<63 - 1,
	} {
		p := New(raw)
		if n, ok := p.Value().Integer(); !ok || n != want {
			t.Errorf("%s is %d, %v", raw, n, ok)
		}
	}
	for _, raw := range []string{"null", "true", `""`, `"x"`, `"5 "`, "1e30", "[]", "9223372036854775808"} {
		p := New(raw)
		if n, ok := p.Value().Integer(); ok {
			t.Errorf("%s is %d", raw, n)
		}
	}
}

func TestField(t *testing.T) {
	for raw, want := range map[string]string{
		`{"a":1,"name":"x"}`: "x", `{"name":"x","name":"y"}`: "y", `{"name":7}`: "7", `{"name":null}`: "",
		`{}`: "", `{"name":"x"`: "", `["name"]`: "", `{"name":"x"} 1`: "",
	} {
		if got := Field(raw, "name"); got != want {
			t.Errorf("%s: %q, want %q", raw, got, want)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range []string{``, `{"a":[1,2.5e-3,"\ud83d\ude00",null]}`, "\"\xff\"", `{"a":{"a":{}}} `} {
		f.Add(s)
	}
	f.Fuzz(check)
}
