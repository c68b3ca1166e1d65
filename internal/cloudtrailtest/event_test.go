package cloudtrailtest

import (
	"strings"
	"testing"
)

func TestEventRefused(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	// object has a JSON text of exactly n bytes.
	object := func(n int) map[string]any { return map[string]any{"k": long(n - len(`{"k":""}`))} }
	type row struct {
		data string
		code string
	}
	cases := map[string]row{
		"plain":                  {goodData("u"), ""},
		"not JSON":               {`{"version":`, "InvalidData"},
		"a list":                 {`[]`, "InvalidData"},
		"null":                   {`null`, "InvalidData"},
		"empty":                  {` `, "InvalidData"},
		"text behind":            {goodData("u") + "x", "InvalidData"},
		"half a surrogate":       {strings.Replace(goodData("u"), "curl", `\ud800 \u00e4 \n`, 1), ""},
		"unknown field":          {goodData("u", set("more", 1)), "InvalidData"},
		"field twice":            {strings.Replace(goodData("u"), "{", `{"UID":"v",`, 1), "InvalidData"},
		"type missing":           {goodData("u", identity("type", nil)), "FieldNotFound"},
		"type empty":             {goodData("u", identity("type", "")), "InvalidData"},
		"type long":              {goodData("u", identity("type", long(129))), "FieldTooLong"},
		"type 128":               {goodData("u", identity("type", long(128))), ""},
		"principal missing":      {goodData("u", identity("principalId", nil)), "FieldNotFound"},
		"principal 1024":         {goodData("u", identity("principalId", long(1024))), ""},
		"principal long":         {goodData("u", identity("principalId", long(1025))), "FieldTooLong"},
		"details text":           {goodData("u", identity("details", "x")), "InvalidData"},
		"details absent":         {goodData("u", identity("details", nil)), ""},
		"identity unknown field": {goodData("u", identity("arn", "x")), "InvalidData"},
		"identity text":          {goodData("u", set("userIdentity", "x")), "InvalidData"},
		"time with fraction":     {goodData("u", set("eventTime", "2026-01-02T03:04:05.1Z")), "InvalidData"},
		"time with offset":       {goodData("u", set("eventTime", "2026-01-02T03:04:05+00:00")), "InvalidData"},
		"time with space":        {goodData("u", set("eventTime", "2026-01-02 03:04:05Z")), "InvalidData"},
		"no such day":            {goodData("u", set("eventTime", "2026-02-30T03:04:05Z")), "InvalidData"},
		"time a number":          {goodData("u", set("eventTime", 5)), "InvalidData"},
		"IPv6":                   {goodData("u", set("sourceIPAddress", "2001:db8::1")), ""},
		"IPv6 with zone":         {goodData("u", set("sourceIPAddress", "fe80::1%eth0")), "InvalidData"},
		"a host name":            {goodData("u", set("sourceIPAddress", "localhost")), "InvalidData"},
		"empty address":          {goodData("u", set("sourceIPAddress", "")), "InvalidData"},
		"no address":             {goodData("u", without("sourceIPAddress")), ""},
		"another account":        {goodData("u", set("recipientAccountId", "999999999999")), "InvalidRecipient"},
		"account a number":       {goodData("u", set("recipientAccountId", 111122223333)), "InvalidData"},
		"parameters 100 kB":      {goodData("u", set("requestParameters", object(MaxParameters))), ""},
		"parameters too large":   {goodData("u", set("requestParameters", object(MaxParameters+1))), "FieldTooLong"},
		"parameters a list":      {goodData("u", set("requestParameters", []any{})), "InvalidData"},
		"parameters null":        {goodData("u", set("requestParameters", nil)), "InvalidData"},
		"response too large":     {goodData("u", set("responseElements", object(MaxParameters+1))), "FieldTooLong"},
		"additional 28 kB":       {goodData("u", set("additionalEventData", object(MaxAdditional))), ""},
		"additional too large":   {goodData("u", set("additionalEventData", object(MaxAdditional+1))), "FieldTooLong"},
		"details are free":       {goodData("u", identity("details", object(50_000))), ""},
		"256 kB":                 {goodData("u") + strings.Repeat(" ", MaxEvent-len(goodData("u"))), ""},
		"256 kB and a byte":      {goodData("u") + strings.Repeat(" ", MaxEvent+1-len(goodData("u"))), "FieldTooLong"},
		"escapes count once":     {strings.Replace(goodData("u"), "3.9.1.1", strings.Repeat(`\u0041`, 256), 1), ""},
	}
	for name, limit := range map[string]int{
		"version": 256, "userAgent": 1024, "eventSource": 1024, "eventName": 1024, "UID": 1024, "errorCode": 256, "errorMessage": 256,
	} {
		cases[name+" at its limit"] = row{goodData("u", set(name, long(limit))), ""}
		cases[name+" over its limit"] = row{goodData("u", set(name, long(limit+1))), "FieldTooLong"}
		cases[name+" a number"] = row{goodData("u", set(name, 1)), "InvalidData"}
	}
	for _, name := range []string{"version", "userIdentity", "eventSource", "eventName", "eventTime", "UID", "recipientAccountId"} {
		cases[name+" missing"] = row{goodData("u", without(name)), "FieldNotFound"}
		cases[name+" null"] = row{goodData("u", set(name, nil)), "FieldNotFound"}
	}
	for _, name := range []string{"version", "eventSource", "eventName", "eventTime", "UID", "recipientAccountId"} {
		cases[name+" empty"] = row{goodData("u", set(name, "")), "InvalidData"}
	}
	for _, name := range []string{"userAgent", "requestParameters", "responseElements", "errorCode", "errorMessage", "additionalEventData"} {
		cases[name+" absent"] = row{goodData("u", without(name)), ""}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := unsigned()
			a := put(t, s, toChannel, bodyOf(wireEvent{ID: "before", Data: goodData("b")}, wireEvent{ID: "it", Data: c.data}, wireEvent{ID: "after", Data: goodData("a")}))
			switch {
			case a.status != 200 || len(a.Successful)+len(a.Failed) != 3:
				t.Fatalf("got %v", a)
			case c.code == "" && len(a.Failed) != 0:
				t.Errorf("refused: %v", a)
			case c.code != "" && (len(a.Failed) != 1 || a.Failed[0].ID != "it" || a.Failed[0].ErrorCode != c.code || a.Failed[0].ErrorMessage == ""):
				t.Errorf("got %v, want %s", a, c.code)
			case c.code != "" && (s.Times("it") != 0 || s.Counts().Failed != 1 || s.Counts().Codes[c.code] != 1):
				t.Errorf("counts %+v", s.Counts())
			}
		})
	}
}

func TestChecksum(t *testing.T) {
	// The example of AWS's documentation.
	if !checksumMatches([]byte(`{"version":"3"}`), "ciKEPcHEATS3DUPOQc3JgoCUtyK3Yjicx/nT76+iBlI=") {
		t.Error("the documented checksum does not match")
	}
	a := put(t, unsigned(), toChannel, bodyOf(wireEvent{ID: "a", Data: goodData("a"), Checksum: "ciKEPcHEATS3DUPOQc3JgoCUtyK3Yjicx/nT76+iBlI="}))
	if len(a.Failed) != 1 || a.Failed[0].ErrorCode != "InvalidChecksum" {
		t.Errorf("got %v", a)
	}
}

func TestEventSourceOfTheChannel(t *testing.T) {
	s := unsigned(func(o *Options) { o.EventSource = "kong-gateway" })
	a := put(t, s, toChannel, bodyOf(
		wireEvent{ID: "good", Data: goodData("a")},
		wireEvent{ID: "other", Data: goodData("a", set("eventSource", "elsewhere"))}))
	if len(a.Successful) != 1 || a.Successful[0].ID != "good" || len(a.Failed) != 1 || a.Failed[0].ErrorCode != "InvalidEventSource" {
		t.Errorf("got %v", a)
	}
}
