package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
)

// TestLogGroupOfAnotherAccount has two accounts with a log group of the same name: what
// is in the ledger of one must not be left out of the other.
func TestLogGroupOfAnotherAccount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger.db")
	unknown := "http://127.0.0.1:1" // STS, where the credentials do not say the account
	open := func(account string, adopt bool) *App {
		t.Helper()
		s := config.Settings{KongAdminAPI: "http://kong:8001", Destination: config.ToCloudWatch, Region: "eu-west-1", LogGroup: "g", LogStream: "s", LedgerFile: file, Source: "kong", Adopt: adopt}
		s.UseAWS(aws.Config{Region: "eu-west-1", BaseEndpoint: &unknown, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret", AccountID: account}, nil
		})})
		a := newApp(s, slog.New(slog.DiscardHandler))
		if err := a.openStore(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		return a
	}
	bind := func(account string, adopt bool) error {
		t.Helper()
		a := open(account, adopt)
		defer a.Close()
		return a.bind(t.Context())
	}
	if err := bind("111111111111", false); err != nil {
		t.Fatal(err)
	}
	a := open("111111111111", false)
	if err := a.Store.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease, err := a.Store.Acquire(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(lease.SetMarks(t.Context(), audit.Marks{Cursor: 1}), a.Close()); err != nil {
		t.Fatal(err)
	}
	err = bind("222222222222", false)
	if !errors.Is(err, audit.ErrAccountMismatch) || !strings.Contains(err.Error(), "111111111111") || !strings.Contains(audit.Hint(err), "222222222222") {
		t.Errorf("another account: %v, hint %q", err, audit.Hint(err))
	}
	if err := bind("", false); err != nil { // nothing is compared
		t.Errorf("an account that is not known: %v", err)
	}
	if err := errors.Join(bind("111111111111", false), bind("222222222222", true), bind("222222222222", false)); err != nil {
		t.Error(err)
	}
}
