// Package setup makes the files of a new installation: the relay's settings with
// fresh secrets, Kong's side, and the permissions in AWS. It contacts nothing.
package setup

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/config"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// Plan describes a new installation.
type Plan struct {
	// Variables are the settings of the relay that are known so far, by variable.
	Variables map[string]string
	RelayURL  string // the relay, as Kong reaches it
	AdminURL  string // the Admin API, as the gateway reaches it; "" for that of the node itself
	RBAC      bool   // the Admin API asks for a token

	settings config.Settings
	newUser  bool // the token was made here, so its user does not exist yet
}

// File is a file of an installation.
type File struct {
	Name string
	What string      // in a few words
	Mode fs.FileMode // 0600 for one with secrets
	Text string
}

// Complete makes what the plan lacks, the secrets and the address to listen at, and
// checks it. The error is a [*config.Error] that names everything that is wrong.
func (p *Plan) Complete() error {
	if p.RBAC && !p.has("KONG_ADMIN_TOKEN") {
		p.Variables["KONG_SUPERADMIN"], p.Variables["KONG_ADMIN_TOKEN"] = "true", rand.Text()+rand.Text()
		p.newUser = true
	}
	if !p.has("RELAY_TRIGGER_SECRET") {
		var key [32]byte
		_, _ = rand.Read(key[:]) // it never fails
		p.Variables["RELAY_TRIGGER_SECRET"] = "whsec_" + base64.StdEncoding.EncodeToString(key[:])
	}
	listen, err := listenAddress(p.RelayURL)
	if err != nil {
		return err
	}
	if p.Variables["RELAY_LISTEN"] == "" {
		p.Variables["RELAY_LISTEN"] = listen
	}
	if p.AdminURL != "" && !isURL(p.AdminURL) {
		return config.Usagef("--admin-url is %q: expected http(s)://host:port, the Admin API as the gateway reaches it", p.AdminURL)
	}
	p.settings, err = config.Load(config.NeedAll, nil, func(name string) string { return p.Variables[name] }, os.ReadFile)
	return err
}

// has reports whether a secret is given, as text, in a file or in Secrets Manager.
func (p *Plan) has(secret string) bool {
	return p.Variables[secret] != "" || p.Variables[secret+"_FILE"] != "" || p.Variables[secret+"_SECRET_ARN"] != ""
}

// listenAddress returns the address at which a relay must listen to be reached at a URL: a
// loopback address, or every address of the machine. For https it is one behind whatever
// speaks TLS in front of the relay.
func listenAddress(relay string) (string, error) {
	const want = "expected http://host:port, or https:// where something in front of the relay speaks TLS"
	u, err := url.Parse(relay)
	switch {
	case relay == "":
		return "", config.Usagef("--relay-url is not set: %s, the address of the relay as Kong reaches it", want)
	case err != nil || !isURL(relay) || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return "", config.Usagef("--relay-url is %q: %s", relay, want)
	case u.Scheme == "https":
		return "0.0.0.0:8080", nil
	}
	host, port := "0.0.0.0", u.Port()
	if trigger.LoopbackHost(u.Hostname()) {
		host = u.Hostname()
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(host, port), nil
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil
}

// Next returns the steps that are left to do with the files of a folder.
func (p *Plan) Next(dir string) []string {
	in := func(name string) string { return filepath.Join(dir, name) }
	var steps []string
	if p.newUser {
		steps = append(steps, "SUPER=<token of a super admin> sh "+in(kongUser))
	}
	if len(p.settings.Permissions()) > 0 {
		steps = append(steps, "give the relay's role "+in(policyJSON)+", where the destination exists")
	}
	return append(steps, "set -a; . "+in(relayEnv)+"; set +a; relay check",
		"give Kong the variable in "+in(kongEnv)+" and the plugin (kong/README.md), then: deck gateway apply "+in(kongYML))
}

// Write writes files into a folder, which it makes if there is none, and overwrites
// nothing: if one of them is there already, it writes none.
func Write(dir string, files []File) error {
	const hint = "give another folder with --dir, or move the file away"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return audit.NewSettingsError(err, hint)
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.Name)); !errors.Is(err, fs.ErrNotExist) {
			return audit.SettingsErrorf(hint, "%s is there already, and nothing is overwritten", filepath.Join(dir, f.Name))
		}
	}
	for _, f := range files {
		if err := create(filepath.Join(dir, f.Name), f); err != nil {
			return audit.NewSettingsError(err, hint)
		}
	}
	return nil
}

func create(path string, f File) error {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode)
	if err != nil {
		return err
	}
	_, err = w.WriteString(f.Text)
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
