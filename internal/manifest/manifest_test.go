// Package manifest checks the Kubernetes manifest with the types of the
// Kubernetes API, and the configuration of a release. It is a separate module, so that these types are not a dependency
// of the relay.
package manifest

import (
	"bytes"
	"net/netip"
	"os"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const path = "../../relay/kubernetes.yaml"

// objects are what a manifest holds, one of each kind.
type objects struct {
	account    corev1.ServiceAccount
	config     corev1.ConfigMap
	deployment appsv1.Deployment
	service    corev1.Service
	budget     policyv1.PodDisruptionBudget
	policy     networkingv1.NetworkPolicy
}

// decode decodes a manifest. A field that the API does not know, a key that
// stands twice, an unknown kind and a second object of a kind are errors.
func decode(t *testing.T, manifest []byte) *objects {
	t.Helper()
	o := new(objects)
	into := map[metav1.TypeMeta]any{
		{APIVersion: "v1", Kind: "ServiceAccount"}:                  &o.account,
		{APIVersion: "v1", Kind: "ConfigMap"}:                       &o.config,
		{APIVersion: "apps/v1", Kind: "Deployment"}:                 &o.deployment,
		{APIVersion: "v1", Kind: "Service"}:                         &o.service,
		{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:      &o.budget,
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}: &o.policy,
	}
	for _, document := range bytes.Split(manifest, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			t.Fatal(err)
		}
		object, ok := into[kind]
		if !ok {
			t.Fatalf("unexpected object: %s %s", kind.APIVersion, kind.Kind)
		}
		delete(into, kind)
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
	}
	for kind := range into {
		t.Errorf("no %s", kind.Kind)
	}
	return o
}

func load(t *testing.T) *objects {
	t.Helper()
	manifest, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, manifest)
}

func TestManifestFitsTogether(t *testing.T) {
	o := load(t)
	pod := o.deployment.Spec.Template
	for _, selector := range []map[string]string{
		o.deployment.Spec.Selector.MatchLabels, o.service.Spec.Selector, o.budget.Spec.Selector.MatchLabels, o.policy.Spec.PodSelector.MatchLabels,
	} {
		for key, value := range selector {
			if pod.Labels[key] != value {
				t.Errorf("selector %s=%s does not match the pod's labels %v", key, value, pod.Labels)
			}
		}
	}
	for _, meta := range []metav1.ObjectMeta{o.account.ObjectMeta, o.config.ObjectMeta, o.deployment.ObjectMeta, o.service.ObjectMeta, o.budget.ObjectMeta, o.policy.ObjectMeta} {
		if meta.Namespace != "kong-audit" {
			t.Errorf("%s is in the namespace %q", meta.Name, meta.Namespace)
		}
	}
	if pod.Spec.ServiceAccountName != o.account.Name {
		t.Errorf("service account %q, want %q", pod.Spec.ServiceAccountName, o.account.Name)
	}
	relay := pod.Spec.Containers[0]
	var ports []string
	for _, p := range relay.Ports {
		ports = append(ports, p.Name)
	}
	for _, port := range []string{
		o.service.Spec.Ports[0].TargetPort.StrVal, relay.StartupProbe.HTTPGet.Port.StrVal,
		relay.LivenessProbe.HTTPGet.Port.StrVal, relay.ReadinessProbe.HTTPGet.Port.StrVal,
	} {
		if !slices.Contains(ports, port) {
			t.Errorf("port %q is not one of the container's %q", port, ports)
		}
	}
	if mode := pod.Spec.Volumes[0].Secret.DefaultMode; mode == nil || *mode != 0o440 {
		t.Errorf("mode of the secrets is %v, want 0440", mode)
	}
}

// TestEgress checks that the network policy lets the relay reach what it calls.
func TestEgress(t *testing.T) {
	policy := load(t).policy
	for _, tt := range []struct {
		what, address string
		port          int32
		open          bool
	}{
		{"the agent of EKS Pod Identity", "169.254.170.23", 80, true},
		{"the agent of EKS Pod Identity", "fd00:ec2::23", 80, true},
		{"the metadata service of the node", "169.254.169.254", 80, false},
		{"AWS", "203.0.113.1", 443, true},
		{"Redis", "10.0.0.1", 6379, true},
		{"a Sentinel", "10.0.0.1", 26379, true},
		{"plain HTTP", "203.0.113.1", 80, false},
	} {
		if got := reaches(policy, netip.MustParseAddr(tt.address), tt.port); got != tt.open {
			t.Errorf("%s at %s, port %d: open is %t, want %t", tt.what, tt.address, tt.port, got, tt.open)
		}
	}
}

// reaches reports whether a rule lets the policy's pods reach an address outside of the cluster.
func reaches(policy networkingv1.NetworkPolicy, address netip.Addr, port int32) bool {
	return slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
		to := len(rule.To) == 0 || slices.ContainsFunc(rule.To, func(peer networkingv1.NetworkPolicyPeer) bool {
			return peer.IPBlock != nil && netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(address)
		})
		return to && slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == port })
	})
}
