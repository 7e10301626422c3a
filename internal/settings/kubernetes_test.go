package settings

import (
	"bytes"
	"os"
	"testing"

	"go.yaml.in/yaml/v4"
)

// TestKubernetesTargets reads the targets file in the manifest, whose own tests are in another module.
func TestKubernetesTargets(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile("../../example/kubernetes/targets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	document, _, _ := bytes.Cut(manifest, []byte("\n---\n"))
	var configMap struct {
		Kind string
		Data map[string]string
	}
	if err := yaml.Unmarshal(document, &configMap); err != nil {
		t.Fatal(err)
	}
	targets, _, err := readTargets(configMap.Data["targets.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	if configMap.Kind != "ConfigMap" || len(targets) != 3 || targets[1].Headers[0].File != "/headers/ledger" || !targets[2].AllAddresses || targets[2].CACert != "" {
		t.Errorf("%s with the targets %+v", configMap.Kind, targets)
	}
}
