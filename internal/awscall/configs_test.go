package awscall_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"github.com/kong-cloudtrail/relay/internal/awscall"
)

// Credentials that were renewed in their file are used without a restart, as soon as
// AWS does not take the old ones.
func TestCredentialsRenewedInTheirFile(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	path := filepath.Join(t.TempDir(), "credentials")
	write := func(id string) {
		text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = example\n", id)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "AKIDOLD") {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}`)
			return
		}
		_, _ = io.WriteString(w, `{"successful":[],"failed":[]}`)
	}))
	defer srv.Close()
	write("AKIDOLD")
	configs := awscall.Configs{Load: func(ctx context.Context) (aws.Config, error) {
		return awsconfig.LoadDefaultConfig(ctx, awsconfig.WithSharedCredentialsFiles([]string{path}), awsconfig.WithSharedConfigFiles(nil), awsconfig.WithBaseEndpoint(srv.URL))
	}}
	cfg, err := configs.In(t.Context(), "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, f := put(t, cfg, 1); f == nil || f.Code != "ExpiredTokenException" {
		t.Fatalf("with old credentials: %v", f)
	}
	write("AKIDNEW")
	if _, f := put(t, cfg, 1); f != nil {
		t.Errorf("with renewed credentials: %v", f)
	}
}

// The SDK writes nothing to standard error, where the lines of the relay's log are.
func TestNothingBesideTheLog(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = write
	cfg, err := new(awscall.Configs).In(t.Context(), "us-east-1")
	os.Stderr = stderr
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100") // the SDK warns of an answer whose end is missing
		_, _ = io.WriteString(w, `{"successful":[],"failed":[]}`)
	}))
	defer srv.Close()
	cfg.BaseEndpoint, cfg.Credentials = &srv.URL, static("")
	if _, f := put(t, cfg, 1); f != nil {
		t.Error(f)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(read); err != nil || len(text) > 0 {
		t.Errorf("%s%v", text, err)
	}
}
