package awscall_test

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

func FuzzAppendQuote(f *testing.F) {
	for _, text := range []string{
		"", `{"a":"b\\c"}`, `"`, `\`, "a\nb", `{"a":"` + "\x00", "\x7f", `{"name":"Zoë"}`, `"` + "\u2028", `"` + "\xff", "\"\xed\xa0\x80",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := awscall.AppendQuote([]byte("before"), text)
		if want, _ := jsontext.AppendQuote([]byte("before"), text); string(got) != string(want) {
			t.Errorf("AppendQuote(%q) = %q, want %q", text, got, want)
		}
	})
}
