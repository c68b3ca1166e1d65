package main

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/kong-cloudtrail/relay/internal/kongadmin"
	"github.com/kong-cloudtrail/relay/internal/lake"
)

// setter reads a value's text into Settings.
type setter = func(l *loader, s *Settings, text string) error

func toggle(field func(*Settings) *bool) setter {
	return func(_ *loader, s *Settings, text string) error {
		switch strings.ToLower(strings.TrimSpace(text)) {
		case "true", "1", "yes", "on":
			*field(s) = true
		case "false", "0", "no", "off":
			*field(s) = false
		default:
			return expected("true or false", "")
		}
		return nil
	}
}

func number(field func(*Settings) *int, least, most int) setter {
	return func(_ *loader, s *Settings, text string) error {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < least || n > most {
			return expected(fmt.Sprintf("a whole number from %d to %d", least, most), "")
		}
		*field(s) = n
		return nil
	}
}

func duration(field func(*Settings) *time.Duration, least, most time.Duration) setter {
	return func(_ *loader, s *Settings, text string) error {
		d, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil || d < least || d > most {
			return expected(fmt.Sprintf("a duration such as 90s or 5m, from %s to %s", brief(least), brief(most)), "")
		}
		*field(s) = d
		return nil
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
func seconds(field func(*Settings) *time.Duration, least, most time.Duration) setter {
	return func(_ *loader, s *Settings, text string) error {
		text = strings.TrimSpace(text)
		d, err := time.ParseDuration(text)
		if n, errN := strconv.ParseUint(text, 10, 32); errN == nil {
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d < least || d > most {
			return expected(fmt.Sprintf("seconds, from %d to %d", least/time.Second, most/time.Second), "")
		}
		*field(s) = d
		return nil
	}
}

func text(field func(*Settings) *string, valid func(string) bool, what string) setter {
	return func(_ *loader, s *Settings, text string) error {
		if valid != nil && !valid(text) {
			return expected(what, "")
		}
		*field(s) = text
		return nil
	}
}

func oneOf(words ...string) func(string) bool {
	return func(text string) bool { return slices.Contains(words, text) }
}

// made tells whether a text has so many bytes, each an ASCII letter, a digit or
// one of more.
func made(text string, least, most int, more string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', strings.IndexByte(more, c) >= 0:
		default:
			return false
		}
	}
	return len(text) >= least && len(text) <= most
}

func hostName(text string) bool { return made(text, 1, 253, ".-") }

// keyName keeps braces out: they would move the hash tag of Redis's keys.
func keyName(text string) bool   { return made(text, 1, 64, "._-") }
func keyPrefix(text string) bool { return made(text, 1, 64, "._:-") }

// What AWS takes, by its service models.
func regionName(text string) bool { return made(text, 3, 64, "-") }
func externalID(text string) bool { return made(text, 2, 1224, "_+=,.@:/-") }
func groupName(text string) bool  { return made(text, 1, 512, "._/#-") }
func streamName(text string) bool {
	return text != "" && len(text) <= 512 && !strings.ContainsAny(text, ":*")
}

// accountID tells whether a text is the id of an AWS account.
func accountID(text string) bool {
	_, err := strconv.ParseUint(text, 10, 64)
	return err == nil && len(text) == 12
}

func adminAPI(l *loader, s *Settings, text string) error {
	const what = "an http or https URL"
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return expected(what, "")
	case u.User != nil:
		return expected(what+" without a user or password", "Put the token into KONG_ADMIN_TOKEN and set KONG_SUPERADMIN=true.")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return expected(what+" without ? and #", "")
	}
	l.adminURL, s.KongAdminAPI = u, strings.TrimSpace(text)
	return nil
}

// pemText returns PEM text that is given as such or by its path. In an
// environment file a new line is often written as \n.
func (l *loader) pemText(text string) ([]byte, error) {
	if strings.Contains(text, "-----BEGIN") {
		return []byte(strings.ReplaceAll(text, `\n`, "\n")), nil
	}
	content, err := l.readFile(text)
	if err != nil {
		return nil, expected("PEM text or the path of a PEM file", "It is read as a path: "+fileReason(err))
	}
	return content, nil
}

// fileReason is the cause of an error as a sentence, without the path of a file.
func fileReason(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error() + "."
}

func certificates(field func(*Settings) *[]byte) setter {
	return func(l *loader, s *Settings, text string) error {
		if text == "disabled" { // how the first integration's documentation says that there is none
			return nil
		}
		content, err := l.pemText(text)
		if err != nil {
			return err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(content) {
			return expected("at least one certificate in PEM", "It begins with -----BEGIN CERTIFICATE-----.")
		}
		*field(s) = content
		return nil
	}
}

func publicKey(l *loader, s *Settings, text string) error {
	content, err := l.pemText(text)
	if err != nil {
		return err
	}
	key, err := kongadmin.ParsePublicKey(string(content))
	if err != nil {
		return expected("an RSA public key in PEM", "Make it from Kong's key: openssl rsa -in <key> -pubout.")
	}
	s.AuditPublicKey = key
	return nil
}

func fileContent(field func(*loader) *[]byte) setter {
	return func(l *loader, _ *Settings, text string) error {
		content, err := l.readFile(text)
		if err != nil {
			return expected("the path of a PEM file", "It cannot be read: "+fileReason(err))
		}
		*field(l) = content
		return nil
	}
}

func ledgerKind(_ *loader, s *Settings, text string) error {
	kind, file, _ := strings.Cut(text, ":")
	switch {
	case text == "redis":
	case kind == "bolt" && file != "":
		s.LedgerFile = file
	default:
		return expected("redis or bolt:<file>", "")
	}
	return nil
}

func redisAddrs(_ *loader, s *Settings, text string) error {
	const what = "host:port, or several of them separated by commas"
	if strings.Contains(text, "://") {
		return expected(what+", not a URL", "User, password, database and TLS have settings of their own: "+
			"REDIS_USERNAME, REDIS_PASSWORD, REDIS_DB and RELAY_REDIS_TLS.")
	}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		host, port, err := net.SplitHostPort(part)
		if err != nil && !strings.Contains(part, ":") {
			host, port, err = part, "6379", nil // the first integration's compose file has a bare name
		}
		if err != nil || host == "" || !isPort(port) {
			return expected(what, "")
		}
		s.RedisAddrs = append(s.RedisAddrs, net.JoinHostPort(host, port))
	}
	if len(s.RedisAddrs) == 0 {
		return expected(what, "")
	}
	return nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

func destination(_ *loader, s *Settings, text string) error {
	kind, file, cut := strings.Cut(text, ":")
	switch d := Destination(kind); {
	case (d == ToCloudTrail || d == ToCloudWatch) && !cut:
		s.Destination = d
	case d == ToJSONL && !cut:
		s.Destination, s.JSONLFile = d, "-"
	case d == ToJSONL && file != "":
		s.Destination, s.JSONLFile = d, file
	default:
		return expected("cloudtrail, cloudwatch or jsonl:<file>", "")
	}
	return nil
}

func channelARN(l *loader, s *Settings, text string) error {
	const what = "the ARN of a CloudTrail Lake channel, arn:aws:cloudtrail:<region>:<account>:channel/<id>"
	a, err := arn.Parse(text)
	switch {
	case err != nil:
		return expected(what, "List them with: aws cloudtrail list-channels")
	case strings.HasPrefix(a.Resource, "eventdatastore/"):
		return expected(what+", not of an event data store", "List the channels with: aws cloudtrail list-channels")
	case !accountID(a.AccountID):
		return expected(what+", with an account of 12 digits", "Every event names the account that owns the channel.")
	}
	s.ChannelARN, s.AccountID, l.channelRegion = text, a.AccountID, a.Region
	return nil
}

// eventDataStore takes the id of an event data store, or the ARN that ends in it.
func eventDataStore(_ *loader, s *Settings, text string) error {
	id := text
	if a, err := arn.Parse(text); err == nil {
		id = strings.TrimPrefix(a.Resource, "eventdatastore/")
	}
	if !lake.IsStoreID(id) {
		return expected("the id or the ARN of an event data store, not of a channel", "List them with: aws cloudtrail list-event-data-stores")
	}
	s.EventDataStore = id
	return nil
}

func logGroup(l *loader, s *Settings, text string) error {
	name := text
	if strings.HasPrefix(text, "arn:") {
		a, err := arn.Parse(strings.TrimSuffix(text, ":*"))
		if err != nil || a.Service != "logs" || !strings.HasPrefix(a.Resource, "log-group:") {
			return expected("the name or the ARN of a log group", "")
		}
		name = strings.TrimPrefix(a.Resource, "log-group:")
		l.groupRegion, l.groupAccount = a.Region, a.AccountID
	}
	if !groupName(name) {
		return expected("the name or the ARN of a log group", "")
	}
	s.LogGroup = name
	return nil
}

func redactPaths(_ *loader, s *Settings, text string) error {
	for path := range strings.SplitSeq(text, ",") {
		path = strings.TrimSpace(path)
		if slices.Contains(strings.Split(path, "."), "") {
			return expected("dotted JSON paths separated by commas", "")
		}
		s.Redact = append(s.Redact, path)
	}
	return nil
}

func schedule(_ *loader, s *Settings, text string) error {
	switch text {
	case "@hourly":
		text = "1h"
	case "@daily":
		text = "24h"
	}
	return duration(func(s *Settings) *time.Duration { return &s.Schedule }, time.Minute, 24*time.Hour)(nil, s, text)
}

func startAt(_ *loader, s *Settings, text string) error {
	text = strings.TrimSpace(text)
	if text == "now" {
		// It would be another time at each start: what a relay missed while it was
		// down, or whose ledger was lost, would be older than that, and skipped.
		return expected("a fixed time", "Give the time itself, such as "+time.Now().UTC().Format(time.RFC3339)+": a now that moves would skip what came while the relay was down.")
	}
	at, err := parseTime(text)
	if err != nil {
		return err
	}
	s.StartAt = at
	return nil
}

// parseTime reads a point in time: a date (its midnight in UTC), RFC 3339, or
// Unix seconds.
func parseTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	// Eight digits are more likely a date without its dashes than a day of 1970.
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 100_000_000 && n < 100_000_000_000 {
		return time.Unix(n, 0).UTC(), nil
	}
	return time.Time{}, expected("a date, a time as in RFC 3339, or Unix seconds", "")
}

func listener(field func(*Settings) *string) setter {
	return func(_ *loader, s *Settings, text string) error {
		if text == "off" {
			*field(s) = ""
			return nil
		}
		_, port, err := net.SplitHostPort(text)
		if err != nil || port != "0" && !isPort(port) {
			return expected("host:port or off", "")
		}
		*field(s) = text
		return nil
	}
}

func logLevel(_ *loader, s *Settings, text string) error {
	if !oneOf("debug", "info", "warn", "error")(strings.ToLower(text)) {
		return expected("debug, info, warn or error", "")
	}
	return s.LogLevel.UnmarshalText([]byte(text))
}

// headerText tells whether a token can stand in a header.
func headerText(text string) error {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return expected("printable ASCII characters without spaces", "")
		}
	}
	return nil
}

// webhookSecrets tells whether a text is one or several secrets of Standard
// Webhooks: 24 to 64 bytes in base64, after whsec_.
func webhookSecrets(text string) error {
	list := splitSecrets(text)
	for _, secret := range list {
		encoded, ok := strings.CutPrefix(secret, "whsec_")
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < 24 || len(key) > 64 {
			return expected("whsec_ and 24 to 64 bytes in base64", `Make one with: echo "whsec_$(openssl rand -base64 32)"`)
		}
	}
	if len(list) == 0 {
		return errEmptySecret
	}
	return nil
}

// splitSecrets returns the secrets of a text in which commas separate them.
func splitSecrets(text string) []string {
	var list []string
	for secret := range strings.SplitSeq(text, ",") {
		if secret = strings.TrimSpace(secret); secret != "" {
			list = append(list, secret)
		}
	}
	return list
}
