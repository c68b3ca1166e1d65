package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/secret"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// setter reads a value's text into the field that it is for.
type setter = func(text string) error

func toggle(field *bool) setter {
	return func(text string) error {
		switch strings.ToLower(text) {
		case "true", "1", "yes", "on":
			*field = true
		case "false", "0", "no", "off":
			*field = false
		default:
			return expected("true or false", "")
		}
		return nil
	}
}

func number(field *int, least, most int) setter {
	return func(text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return expected(fmt.Sprintf("a whole number from %d to %d", least, most), "")
		}
		*field = n
		return nil
	}
}

func duration(field *time.Duration, least, most time.Duration) setter {
	return func(text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d < least || d > most {
			return expected(fmt.Sprintf("a duration such as 90s or 5m, from %s to %s", brief(least), brief(most)), "")
		}
		*field = d
		return nil
	}
}

// orOff takes off as well, and leaves the field at its zero value then.
func orOff(set setter) setter {
	return func(text string) error {
		if text == "off" {
			return nil
		}
		err := set(text)
		if v, ok := errors.AsType[*valueError](err); ok {
			return expected(v.expected+", or off", v.hint)
		}
		return err
	}
}

// brief writes a duration without the zeros at its end: 1h, not 1h0m0s.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// seconds takes whole seconds, and a duration as well.
func seconds(field *time.Duration, least, most time.Duration) setter {
	return func(text string) error {
		d, err := time.ParseDuration(text)
		if n, errN := strconv.ParseUint(text, 10, 32); errN == nil {
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d < least || d > most {
			return expected(fmt.Sprintf("seconds, from %d to %d", least/time.Second, most/time.Second), "")
		}
		*field = d
		return nil
	}
}

func text(field *string, valid func(string) bool, what string) setter {
	return func(text string) error {
		if valid != nil && !valid(text) {
			return expected(what, "")
		}
		*field = text
		return nil
	}
}

func oneOf(words ...string) func(string) bool {
	return func(text string) bool { return slices.Contains(words, text) }
}

// token returns a function that reports whether a text has least to most bytes, each of
// them an ASCII letter, a digit or one of extra.
func token(least, most int, extra string) func(string) bool {
	return func(text string) bool {
		for i := range len(text) {
			switch c := text[i]; {
			case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', strings.IndexByte(extra, c) >= 0:
			default:
				return false
			}
		}
		return len(text) >= least && len(text) <= most
	}
}

func streamName(text string) bool {
	return text != "" && len(text) <= 512 && !strings.ContainsAny(text, ":*")
}

// storeID reports whether a text is the id of an event data store, a UUID.
func storeID(text string) bool {
	return len(text) == 36 && strings.Trim(text, "0123456789abcdef-") == ""
}

func accountID(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil && len(text) == 12
}

func (l *loader) redactPaths(text string) error {
	for path := range strings.SplitSeq(text, ",") {
		path = strings.TrimSpace(path)
		if slices.Contains(strings.Split(path, "."), "") {
			return expected("dotted JSON paths separated by commas", "")
		}
		if strings.HasPrefix(path, "@") && path != "@secrets" { // as a path it would redact nothing
			return expected("dotted JSON paths separated by commas, and @secrets for all that Kong keeps secret", "")
		}
		l.settings.Redact = append(l.settings.Redact, path)
	}
	return nil
}

func (l *loader) schedule(text string) error {
	switch text {
	case "@hourly":
		text = "1h"
	case "@daily":
		text = "24h"
	}
	return duration(&l.settings.Schedule, time.Minute, 24*time.Hour)(text)
}

func (l *loader) logLevel(text string) error {
	if !oneOf("debug", "info", "warn", "error")(strings.ToLower(text)) {
		return expected("debug, info, warn or error", "")
	}
	return l.settings.LogLevel.UnmarshalText([]byte(text))
}

// headerText returns an error if a token cannot stand in a header.
func headerText(text string) error {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return expected("printable ASCII characters without spaces", "")
		}
	}
	return nil
}

// webhookSecrets returns an error unless a text is one or several secrets of Standard
// Webhooks.
func webhookSecrets(text string) error {
	list := SplitSecrets(text)
	for _, secret := range list {
		if trigger.CheckSecret(secret) != nil {
			return expected("whsec_ and 24 to 64 bytes in base64", `Make one with: echo "whsec_$(openssl rand -base64 32)"`)
		}
	}
	if len(list) == 0 {
		return secret.ErrEmpty
	}
	return nil
}

// SplitSecrets returns the secrets of a text in which commas separate them.
func SplitSecrets(text string) []string {
	var list []string
	for secret := range strings.SplitSeq(text, ",") {
		if secret = strings.TrimSpace(secret); secret != "" {
			list = append(list, secret)
		}
	}
	return list
}
