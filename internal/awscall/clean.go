package awscall

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxReason bounds what is kept of a message, in bytes.
const maxReason = 256

// longWord matches what may be a token, a signature or a key: no name in AWS's
// own messages is as long without a separator.
var longWord = regexp.MustCompile(`[A-Za-z0-9+=]{32,}|\b(AKIA|ASIA)[A-Z0-9]{8,}`)

// Clean returns the part of AWS's message that may be shown. AWS echoes what it
// was sent: the canonical request with the session token after "The Canonical
// String", values in quotes, whole events. So the message ends before the first
// quote, bracket or line break, long words are left out, and it is short,
// printable and one line.
func Clean(message string) string {
	if i := strings.IndexAny(message, "'\"`{[<\r\n"); i >= 0 {
		message = message[:i]
	}
	for _, marker := range []string{"Canonical String", "canonical request", "String-to-Sign", "X-Amz-", "x-amz-", "Authorization"} {
		if i := strings.Index(message, marker); i >= 0 {
			message = message[:i]
		}
	}
	message = longWord.ReplaceAllString(message, "…")
	message = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, message))
	if len(message) > maxReason {
		message = message[:maxReason]
		for !utf8.ValidString(message) {
			message = message[:len(message)-1]
		}
	}
	return message
}
