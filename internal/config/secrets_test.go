package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSecretInAFileIsRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		write("one\n")
		flags, getenv, _ := given(nil, []string{"KONG_ADMIN_TOKEN_FILE=" + path, "RELAY_SECRET_REFRESH=1m"}, nil)
		s, err := Load(NeedLedger, flags, getenv, os.ReadFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"one", "two"} {
			if got, err := s.KongToken.Fetch(t.Context(), false); got != want || err != nil {
				t.Errorf("not %s: %v", want, err)
			}
			write("two\n")
			<-time.After(time.Minute)
		}
	})
}

func TestSecretsThatCannotBe(t *testing.T) {
	for _, check := range []func(string) error{headerText, webhookSecrets} {
		if err := check("hunter2 hunter2"); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
	}
}
