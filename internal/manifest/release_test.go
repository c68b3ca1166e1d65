package manifest

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// release is what matters here of the configuration of GoReleaser.
type release struct {
	Before struct {
		Hooks []string `json:"hooks"`
	} `json:"before"`
	Archives []struct {
		ID    string        `json:"id"`
		Files []archiveFile `json:"files"`
	} `json:"archives"`
	Images []struct {
		SBOM string `json:"sbom"`
	} `json:"dockers_v2"`
	SBOMs []struct {
		Artifacts string `json:"artifacts"`
	} `json:"sboms"`
	Signs []struct {
		Artifacts string `json:"artifacts"`
	} `json:"signs"`
	ImageSigns []struct {
		Args []string `json:"args"`
	} `json:"docker_signs"`
}

type archiveFile struct {
	Src string `json:"src"`
}

// TestRelease checks that every archive and image of a release carries its licences and
// says what it contains, that all of it is signed, and that no image has a base that
// can change.
func TestRelease(t *testing.T) {
	text, err := os.ReadFile("../../.goreleaser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var r release
	if err := yaml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Archives {
		for _, want := range []string{"LICENSE", "THIRD_PARTY_NOTICES"} {
			if !slices.ContainsFunc(a.Files, func(f archiveFile) bool { return strings.HasSuffix(f.Src, want) }) {
				t.Errorf("the archive %s has no %s", a.ID, want)
			}
		}
	}
	if len(r.Archives) == 0 || len(r.SBOMs) != 1 || r.SBOMs[0].Artifacts != "archive" || len(r.Signs) != 1 || r.Signs[0].Artifacts != "checksum" {
		t.Errorf("archives %v, lists of contents %v, signatures %v", r.Archives, r.SBOMs, r.Signs)
	}
	if len(r.Images) == 0 || len(r.ImageSigns) != 1 || !slices.Contains(r.ImageSigns[0].Args, "${artifact}@${digest}") {
		t.Errorf("images %v, signed by %v", r.Images, r.ImageSigns)
	}
	for _, image := range r.Images {
		if image.SBOM != "true" {
			t.Error("an image does not say what it contains")
		}
	}
	if !slices.ContainsFunc(r.Before.Hooks, func(h string) bool { return strings.Contains(h, ".ci/pin --check") }) {
		t.Error("a release does not ask whether its base images have a digest")
	}
	for _, path := range []string{"../../relay/Dockerfile", "../../kong/Dockerfile"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "THIRD_PARTY_NOTICES") {
			t.Errorf("%s leaves the licences of third parties out", path)
		}
	}
}
