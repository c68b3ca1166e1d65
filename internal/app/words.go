package app

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Plural counts things: "1 page", "2 pages".
func Plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if stem, ok := strings.CutSuffix(one, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// OrDash returns s, or a dash if it is empty.
func OrDash(s string) string { return cmp.Or(s, "-") }

// Moment formats a Unix second for a person, 0 as the empty string.
func Moment(second int64) string {
	if second == 0 {
		return ""
	}
	return time.Unix(second, 0).UTC().Format(time.RFC3339)
}
