// Package echo finds out whether a text repeats a secret, in whatever coding.
package echo

import (
	"encoding/base64"
	"encoding/hex"
	"html"
	"regexp"
	"strconv"
	"strings"
)

// Secrets are values that must not get into an error or a log, in any coding.
type Secrets []string

const (
	// gram is the number of successive characters of a secret that count as an echo of it.
	gram = 8
	// MaxText bounds how much of a text is searched, and thus may be shown.
	MaxText = 4 << 10
	// Withheld replaces a text that repeats a secret.
	Withheld = "(withheld: the answer repeats the token)"
	// codings is how many codings within each other are undone.
	codings = 3
)

// In reports whether a text repeats a secret, or a good part of one: as it is,
// or percent-encoded, quoted-printable, with escapes of JSON, JavaScript or HTML, in
// hexadecimal or base64, in upper or lower case, or broken into lines.
func (s Secrets) In(text string) bool {
	grams := map[string]bool{}
	for _, secret := range s {
		secret = strings.ToLower(secret)
		for i := 0; i+gram <= len(secret); i++ {
			grams[secret[i:i+gram]] = true
		}
		if secret != "" && len(secret) < gram {
			grams[secret] = true
		}
	}
	if len(grams) == 0 {
		return false
	}
	seen := map[string]bool{}
	for forms, depth := []string{text[:min(len(text), MaxText)]}, 0; depth <= codings; depth++ {
		var next []string
		for _, form := range forms {
			if form == "" || seen[form] {
				continue
			}
			seen[form] = true
			if contains(form, grams) {
				return true
			}
			next = append(next, decodings(form)...)
		}
		forms = next
	}
	return false
}

func contains(text string, grams map[string]bool) bool {
	text = strings.ToLower(text)
	for i := 0; i+gram <= len(text); i++ {
		if grams[text[i:i+gram]] {
			return true
		}
	}
	for g := range grams {
		if len(g) < gram && strings.Contains(text, g) {
			return true
		}
	}
	return false
}

var (
	percent   = regexp.MustCompile(`[%=][0-9A-Fa-f]{2}`)
	unicodes  = regexp.MustCompile(`\\(u00|x|u\{)[0-9A-Fa-f]{2}\}?`)
	hexRun    = regexp.MustCompile(`([0-9A-Fa-f]{2}[ :-]?){4,}`)
	base64Run = regexp.MustCompile(`[-_A-Za-z0-9+/]{8,}`)
)

// decodings returns the decoded forms of a text in each coding.
func decodings(text string) []string {
	fromHex := func(s string) string {
		n, _ := strconv.ParseUint(s, 16, 8) // it has been matched
		return string([]byte{byte(n)})
	}
	forms := []string{
		strings.Join(strings.Fields(text), ""),
		strings.NewReplacer("=\r\n", "", "=\n", "", `\`, "").Replace(text),
		html.UnescapeString(text),
		percent.ReplaceAllStringFunc(text, func(s string) string { return fromHex(s[1:]) }),
		unicodes.ReplaceAllStringFunc(text, func(s string) string {
			s = strings.TrimSuffix(s, "}")
			return fromHex(s[len(s)-2:])
		}),
	}
	var decoded strings.Builder
	for _, run := range hexRun.FindAllString(text, -1) {
		run = strings.NewReplacer(" ", "", ":", "", "-", "").Replace(run)
		for offset := range 2 {
			s := run[offset:]
			b, _ := hex.DecodeString(s[:len(s)/2*2])
			decoded.Write(append(b, 0))
		}
	}
	for _, run := range base64Run.FindAllString(text, -1) {
		run = strings.NewReplacer("-", "+", "_", "/").Replace(run)
		for offset := range min(4, len(run)) {
			s := run[offset:]
			if len(s)%4 == 1 { // no encoding has this length
				s = s[:len(s)-1]
			}
			b, _ := base64.RawStdEncoding.DecodeString(s)
			decoded.Write(append(b, 0))
		}
	}
	return append(forms, decoded.String())
}

// Scrub returns an error whose text repeats no secret. What an error is stays
// known to errors.Is and errors.As.
func (s Secrets) Scrub(err error) error {
	if err == nil || len(err.Error()) <= MaxText && !s.In(err.Error()) {
		return err
	}
	return &scrubbed{err}
}

type scrubbed struct{ err error }

func (*scrubbed) Error() string   { return Withheld }
func (e *scrubbed) Unwrap() error { return e.err }
