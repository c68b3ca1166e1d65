package awscall_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

func TestAccount(t *testing.T) {
	asked := 0
	answer, status := "", http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.FormValue("Action") != "GetCallerIdentity" {
			t.Errorf("asked %v", r.Form)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer srv.Close()
	account := func(c aws.CredentialsProvider) (string, error) {
		return awscall.Account(t.Context(), aws.Config{Region: "us-east-1", BaseEndpoint: &srv.URL, Credentials: c})
	}

	// The source of the credentials knows it: nobody is asked.
	of := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret", AccountID: "111122223333"}, nil
	})
	if got, err := account(of); got != "111122223333" || err != nil || asked != 0 {
		t.Errorf("%q, %v, asked %d times", got, err, asked)
	}
	answer = `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
		<Arn>arn:aws:iam::444455556666:user/kong</Arn><UserId>A</UserId><Account>444455556666</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`
	if got, err := account(static("")); got != "444455556666" || err != nil || asked != 1 {
		t.Errorf("%q, %v, asked %d times", got, err, asked)
	}
	// An answer that is not from STS names no account.
	for _, c := range []struct {
		status int
		answer string
	}{{200, "{}"}, {200, "<html>hunter2</html>"}, {403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>hunter2 'x'</Message></Error></ErrorResponse>"}, {503, ""}, {404, "hunter2"}} {
		status, answer = c.status, c.answer
		if got, err := account(static("token")); got != "" || err == nil || strings.Contains(err.Error(), "hunter2 'x'") {
			t.Errorf("%d %s: %q, %v", c.status, c.answer, got, err)
		}
	}
	if got, err := account(nil); got != "" || err == nil {
		t.Errorf("without credentials: %q, %v", got, err)
	}
}
