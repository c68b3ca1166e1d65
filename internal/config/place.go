package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

// Setters for addresses: of Kong, the ledger, the destination, a listener.

func (l *loader) adminAPI(text string) error {
	const what = "an http or https URL"
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return expected(what, "")
	case u.User != nil:
		return expected(what+" without a user or password", "Put the token into KONG_ADMIN_TOKEN and set KONG_SUPERADMIN=true.")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return expected(what+" without ? and #", "")
	}
	l.adminURL, l.settings.KongAdminAPI = u, text
	return nil
}

func (l *loader) ledgerKind(text string) error {
	kind, file, _ := strings.Cut(text, ":")
	switch {
	case text == "redis":
	case kind == "bolt" && file != "":
		l.settings.LedgerFile = file
	default:
		return expected("redis or bolt:<file>", "")
	}
	return nil
}

func (l *loader) redisAddrs(text string) error {
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
		if strings.ContainsAny(part, " \t@/?#") { // a user or a password would be shown as part of the address
			return expected(what, "User and password have settings of their own: REDIS_USERNAME and REDIS_PASSWORD.")
		}
		host, port, err := net.SplitHostPort(part)
		if err != nil && !strings.Contains(part, ":") {
			// The first integration's compose file has a bare name. Which port it means
			// depends on whether it is a Sentinel.
			l.settings.RedisAddrs = append(l.settings.RedisAddrs, part)
			continue
		}
		if err != nil || host == "" || !isPort(port) {
			return expected(what, "")
		}
		l.settings.RedisAddrs = append(l.settings.RedisAddrs, net.JoinHostPort(host, port))
	}
	if len(l.settings.RedisAddrs) == 0 {
		return expected(what, "")
	}
	return nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

func (l *loader) channelARN(text string) error {
	const what = "the ARN of a CloudTrail Lake channel, arn:aws:cloudtrail:<region>:<account>:channel/<id>"
	a, err := arn.Parse(text)
	switch {
	case err != nil, a.Service != "cloudtrail":
		return expected(what, "List them with: aws cloudtrail list-channels")
	case strings.HasPrefix(a.Resource, "eventdatastore/"):
		return expected(what+", not of an event data store", "List the channels with: aws cloudtrail list-channels")
	case !accountID(a.AccountID):
		return expected(what+", with an account of 12 digits", "Every event names the account that owns the channel.")
	}
	l.settings.ChannelARN, l.arns[ToCloudTrail] = text, a
	return nil
}

// eventDataStore takes the id of an event data store, or the ARN that ends in it.
func (l *loader) eventDataStore(text string) error {
	id := text
	if a, err := arn.Parse(text); err == nil {
		id = strings.TrimPrefix(a.Resource, "eventdatastore/")
	}
	if !storeID(id) {
		return expected("the id or the ARN of an event data store, not of a channel", "List them with: aws cloudtrail list-event-data-stores")
	}
	l.settings.EventDataStore = id
	return nil
}

func (l *loader) logGroup(text string) error {
	name := text
	if strings.HasPrefix(text, "arn:") {
		a, err := arn.Parse(strings.TrimSuffix(text, ":*"))
		if err != nil || a.Service != "logs" || !strings.HasPrefix(a.Resource, "log-group:") {
			return expected("the name or the ARN of a log group", "")
		}
		name = strings.TrimPrefix(a.Resource, "log-group:")
		l.arns[ToCloudWatch] = a
	}
	if !token(1, 512, "._/#-")(name) {
		return expected("the name or the ARN of a log group", "")
	}
	l.settings.LogGroup = name
	return nil
}

func listener(field *string) setter {
	return func(text string) error {
		if text == "off" {
			*field = ""
			return nil
		}
		if CheckListen(text) != nil {
			return expected("host:port or off", "")
		}
		*field = text
		return nil
	}
}

// CheckListen returns an error unless a text is an address to listen at. Port 0 is any that is free.
func CheckListen(text string) error {
	if _, port, err := net.SplitHostPort(text); err != nil || port != "0" && !isPort(port) {
		return expected("host:port", "")
	}
	return nil
}
