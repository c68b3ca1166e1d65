package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestLogKeys compares the keys that log lines of the product use with the list in
// CONTRIBUTING.md, so that who searches logs meets one name for one thing.
func TestLogKeys(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(text), "<!-- log keys -->")
	list, _, closed := strings.Cut(list, "<!-- end -->")
	if !found || !closed {
		t.Fatal("CONTRIBUTING.md has no list of log keys between its two marks")
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(list, -1) {
		documented[m[1]] = true
	}
	used := map[string]string{}
	for _, root := range []string{".", "../plugin", "../internal"} {
		logKeys(t, root, used)
	}
	for _, key := range slices.Sorted(maps.Keys(used)) {
		if !documented[key] {
			t.Errorf("%s: the key %q is not in CONTRIBUTING.md: use one that is, or add it there", used[key], key)
		}
		delete(documented, key)
	}
	if len(documented) > 0 {
		t.Errorf("CONTRIBUTING.md lists keys that no log line uses: %q", slices.Sorted(maps.Keys(documented)))
	}
}

// emulators are not part of the product.
var emulators = regexp.MustCompile(`internal/([a-z]+test|emulator)/`)

// logKeys adds the literal keys of slog's calls below a directory, with a place.
func logKeys(t *testing.T, root string, keys map[string]string) {
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || emulators.MatchString(filepath.ToSlash(path)) {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			args := keyArgs(call)
			for i := 0; i+1 < len(args); i += 2 {
				if key, ok := literal(args[i]); ok {
					keys[key] = files.Position(args[i].Pos()).String()
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// keyArgs returns the keys and values of a call of a logger; none for other calls.
func keyArgs(call *ast.CallExpr) []ast.Expr {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return nil
	}
	name, args := method.Sel.Name, call.Args
	if short, ok := strings.CutSuffix(name, "Context"); ok {
		name, args = short, args[1:]
	}
	switch name {
	case "With":
		return args
	case "Debug", "Info", "Warn", "Error":
		if len(args) > 0 {
			if _, constant := literal(args[0]); constant {
				return args[1:]
			}
		}
	}
	return nil
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}
