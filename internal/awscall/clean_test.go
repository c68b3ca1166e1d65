package awscall

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":              "",
		"Rate exceeded": "Rate exceeded",
		"User: arn:aws:sts::123456789012:assumed-role/kong-relay/i-0abc is not authorized to perform: cloudtrail-data:PutAuditEvents":                                                                                                                                        "User: arn:aws:sts::123456789012:assumed-role/kong-relay/i-0abc is not authorized to perform: cloudtrail-data:PutAuditEvents",
		"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.\n\nThe Canonical String for this request should have been\n'POST\n/PutAuditEvents\n\nx-amz-security-token:FwoGZXIvYXdzEXAMPLE'": "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.",
		"The Canonical String for this request should have been POST x-amz-security-token:secret":                                                                                                                                                                            "The",
		"1 validation error detected: Value 'hunter2' at 'auditEvents.1.member.id' failed to satisfy constraint":                                                                                                                                                             "1 validation error detected: Value",
		`Invalid event {"password":"hunter2"}`:                                       "Invalid event",
		"The security token FwoGZXIvYXdzEBYaDHhBTEVMTE9TRUNSRVRUT0tFTg== is invalid": "The security token … is invalid",
		"The AWS Access Key Id AKIDEXAMPLE ASIAIOSFODNN7EXAMPLE does not exist":      "The AWS Access Key Id AKIDEXAMPLE … does not exist",
		"two\nlines": "two",
	} {
		if got := Clean(in); got != want {
			t.Errorf("%q gave %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x00\u2028\u202eb" + strings.Repeat("é ", 400))
	f.Fuzz(func(t *testing.T, message string) {
		if got := Clean(message); len(got) > maxReason || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x00\x1b'\"{") {
			t.Errorf("%q", got)
		}
	})
}
