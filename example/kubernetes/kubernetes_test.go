// Package kubernetes tests the manifests. It is a module of its own, so that users of grpc-health-http do not need the modules with
// Kubernetes' types.
package kubernetes

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// healthCheckPolicy, backendConfig and targetGroupConfiguration are the parts of two of GKE's types, and of one of AWS', that the manifests use
// (https://googlecloudplatform.github.io/gke-gateway-api/,
// https://cloud.google.com/kubernetes-engine/docs/how-to/ingress-configuration,
// https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/gateway/spec/). Their Go modules contain whole controllers.
type (
	targetGroupConfiguration struct {
		meta.TypeMeta   `json:",inline"`
		meta.ObjectMeta `json:"metadata"`
		Spec            struct {
			TargetReference struct {
				Name string `json:"name"`
			} `json:"targetReference"`
			DefaultConfiguration struct {
				TargetType        string `json:"targetType"`
				ProtocolVersion   string `json:"protocolVersion"`
				HealthCheckConfig struct {
					Protocol string `json:"healthCheckProtocol"`
					Port     string `json:"healthCheckPort"`
					Path     string `json:"healthCheckPath"`
					Matcher  struct {
						GRPCCode string `json:"grpcCode"`
					} `json:"matcher"`
					Interval int32 `json:"healthCheckInterval"`
					Timeout  int32 `json:"healthCheckTimeout"`
				} `json:"healthCheckConfig"`
			} `json:"defaultConfiguration"`
		} `json:"spec"`
	}
	healthCheckPolicy struct {
		meta.TypeMeta   `json:",inline"`
		meta.ObjectMeta `json:"metadata"`
		Spec            struct {
			TargetRef struct {
				Group string `json:"group"`
				Kind  string `json:"kind"`
				Name  string `json:"name"`
			} `json:"targetRef"`
			Default struct {
				timing `json:",inline"`
				Config struct {
					Type             string     `json:"type"`
					HTTPHealthCheck  *portCheck `json:"httpHealthCheck"`
					HTTP2HealthCheck *portCheck `json:"http2HealthCheck"`
					GRPCHealthCheck  *portCheck `json:"grpcHealthCheck"`
				} `json:"config"`
			} `json:"default"`
		} `json:"spec"`
	}
	backendConfig struct {
		meta.TypeMeta   `json:",inline"`
		meta.ObjectMeta `json:"metadata"`
		Spec            struct {
			HealthCheck struct {
				timing      `json:",inline"`
				Type        string `json:"type"`
				Port        int32  `json:"port"`
				RequestPath string `json:"requestPath"`
			} `json:"healthCheck"`
		} `json:"spec"`
	}
	portCheck struct {
		PortSpecification string `json:"portSpecification"`
		Port              int32  `json:"port"`
		RequestPath       string `json:"requestPath"` // not with gRPC
	}
	timing struct {
		CheckIntervalSec   int64 `json:"checkIntervalSec"`
		TimeoutSec         int64 `json:"timeoutSec"`
		HealthyThreshold   int64 `json:"healthyThreshold"`
		UnhealthyThreshold int64 `json:"unhealthyThreshold"`
	}
)

// empty has a function for each kind that returns an object to decode into.
var empty = map[string]func() any{
	"apps/v1 Deployment":                          func() any { return new(apps.Deployment) },
	"cert-manager.io/v1 Certificate":              func() any { return new(certmanager.Certificate) },
	"cloud.google.com/v1 BackendConfig":           func() any { return new(backendConfig) },
	"gateway.k8s.aws/v1 TargetGroupConfiguration": func() any { return new(targetGroupConfiguration) },
	"monitoring.coreos.com/v1 PodMonitor":         func() any { return new(monitoring.PodMonitor) },
	"networking.gke.io/v1 HealthCheckPolicy":      func() any { return new(healthCheckPolicy) },
	"networking.k8s.io/v1 Ingress":                func() any { return new(networking.Ingress) },
	"networking.k8s.io/v1 NetworkPolicy":          func() any { return new(networking.NetworkPolicy) },
	"v1 ConfigMap":                                func() any { return new(core.ConfigMap) },
	"v1 Pod":                                      func() any { return new(core.Pod) },
	"v1 Service":                                  func() any { return new(core.Service) },
}

// objects decodes every manifest, by file. It fails for unknown fields and duplicate fields, as an API server can.
func objects(t *testing.T) map[string][]any {
	t.Helper()
	names, err := filepath.Glob("*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no manifests: %v", err)
	}
	all := make(map[string][]any)
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for document := range bytes.SplitSeq(content, []byte("\n---\n")) {
			asJSON, err := yaml.YAMLToJSONStrict(document)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var kind meta.TypeMeta
			if err := json.UnmarshalCaseSensitivePreserveInts(asJSON, &kind); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			newObject := empty[kind.APIVersion+" "+kind.Kind]
			if newObject == nil {
				t.Fatalf("%s: unknown kind %s %s", name, kind.APIVersion, kind.Kind)
			}
			object := newObject()
			strict, err := json.UnmarshalStrict(asJSON, object)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, kind.Kind, err)
			}
			for _, err := range strict {
				t.Errorf("%s: %s: %v", name, kind.Kind, err)
			}
			all[name] = append(all[name], object)
		}
	}
	return all
}

// pod is a pod of a manifest, or of a template in one.
type pod struct {
	file   string
	labels map[string]string
	spec   core.PodSpec
}

// containers returns all containers of the pod.
func (p pod) containers() []core.Container {
	return slices.Concat(p.spec.InitContainers, p.spec.Containers)
}

// port returns the number of the port with this name, or 0.
func port(name string, containers ...core.Container) int32 {
	for _, c := range containers {
		for _, port := range c.Ports {
			if port.Name == name {
				return port.ContainerPort
			}
		}
	}
	return 0
}

// probes returns the probes of a container.
func probes(c core.Container) []*core.Probe {
	return slices.DeleteFunc([]*core.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe}, func(p *core.Probe) bool { return p == nil })
}

func pods(t *testing.T) []pod {
	t.Helper()
	var all []pod
	for file, objects := range objects(t) {
		for _, object := range objects {
			switch o := object.(type) {
			case *apps.Deployment:
				all = append(all, pod{file, o.Spec.Template.Labels, o.Spec.Template.Spec})
			case *core.Pod:
				all = append(all, pod{file, o.Labels, o.Spec})
			}
		}
	}
	return all
}

// TestRestricted checks each pod against the Pod Security Standard "restricted", and some more rules
// (https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted).
func TestRestricted(t *testing.T) {
	t.Parallel()
	for _, p := range pods(t) {
		is := func(what string, holds bool) {
			if !holds {
				t.Errorf("%s: not %s", p.file, what)
			}
		}
		s := p.spec.SecurityContext
		is("runAsNonRoot", s != nil && s.RunAsNonRoot != nil && *s.RunAsNonRoot)
		is("seccompProfile RuntimeDefault", s != nil && s.SeccompProfile != nil && s.SeccompProfile.Type == core.SeccompProfileTypeRuntimeDefault)
		is("automountServiceAccountToken: false", p.spec.AutomountServiceAccountToken != nil && !*p.spec.AutomountServiceAccountToken)
		for _, c := range p.containers() {
			s := c.SecurityContext
			if s == nil {
				t.Errorf("%s: %s has no security context", p.file, c.Name)
				continue
			}
			is("allowPrivilegeEscalation: false", s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation)
			is("capabilities: drop ALL", s.Capabilities != nil && slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) && s.Capabilities.Add == nil)
			is("readOnlyRootFilesystem", s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem)
		}
	}
}

// TestSettings looks the proxy's variables and the probe's flags up in the manual, whose table another test compares
// with the programs.
func TestSettings(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	known := func(file, setting string) {
		if !regexp.MustCompile("(?m)^\\| .*`" + setting + "`").Match(manual) {
			t.Errorf("%s: no setting %s", file, setting)
		}
	}
	for _, p := range pods(t) {
		for _, c := range p.containers() {
			for _, variable := range c.Env {
				known(p.file, variable.Name)
			}
			for _, probe := range probes(c) {
				if probe.Exec == nil {
					continue
				}
				for _, argument := range probe.Exec.Command[1:] {
					flag, _, _ := strings.Cut(argument, "=")
					known(p.file, flag)
				}
			}
		}
	}
}

// TestPorts checks that every reference to a port, by name or number, leads to a container's port.
func TestPorts(t *testing.T) {
	t.Parallel()
	all := pods(t)
	for _, p := range all {
		for _, c := range p.containers() {
			for _, probe := range probes(c) {
				// A name must be of the probed container's port; a number may be of another container's.
				var probed intstr.IntOrString
				switch {
				case probe.HTTPGet != nil:
					probed = probe.HTTPGet.Port
				case probe.GRPC != nil:
					probed = intstr.FromInt32(probe.GRPC.Port)
				default:
					continue
				}
				number := cmp.Or(probed.IntVal, port(probed.StrVal, c))
				if !slices.ContainsFunc(p.containers(), func(c core.Container) bool {
					return slices.ContainsFunc(c.Ports, func(port core.ContainerPort) bool { return port.ContainerPort == number })
				}) {
					t.Errorf("%s: %s is probed on %s, which is not a port", p.file, c.Name, &probed)
				}
			}
		}
	}
	// has finds a pod with the labels that has the port.
	has := func(labels map[string]string, wanted intstr.IntOrString) bool {
		return slices.ContainsFunc(all, func(p pod) bool {
			for label, value := range labels {
				if p.labels[label] != value {
					return false
				}
			}
			return slices.Contains(numbers(p), cmp.Or(wanted.IntVal, port(wanted.StrVal, p.containers()...)))
		})
	}
	healthPorts := make(map[string]int32) // whom load balancers ask, by file
	for file, objects := range objects(t) {
		for _, object := range objects {
			switch o := object.(type) {
			case *core.Service:
				for _, port := range o.Spec.Ports {
					if !has(o.Spec.Selector, port.TargetPort) {
						t.Errorf("%s: the Service %s leads to no port %s", file, o.Name, &port.TargetPort)
					}
				}
			case *monitoring.PodMonitor:
				for _, endpoint := range o.Spec.PodMetricsEndpoints {
					if !has(o.Spec.Selector.MatchLabels, intstr.FromString(*endpoint.Port)) {
						t.Errorf("%s: no pod has the labels and the port %s", file, *endpoint.Port)
					}
				}
			case *networking.NetworkPolicy:
				for _, rule := range o.Spec.Ingress {
					for _, port := range rule.Ports {
						if !has(o.Spec.PodSelector.MatchLabels, *port.Port) {
							t.Errorf("%s: no pod has the labels and the port %s", file, port.Port)
						}
					}
				}
			case *healthCheckPolicy:
				c := o.Spec.Default.Config
				checks := map[string]*portCheck{"HTTP": c.HTTPHealthCheck, "HTTP2": c.HTTP2HealthCheck, "GRPC": c.GRPCHealthCheck}
				for kind, check := range checks {
					if (check != nil) != (kind == c.Type) {
						t.Errorf("%s: the type is %s, and the check of type %s is there: %t", file, c.Type, kind, check != nil)
					}
				}
				if check := checks[c.Type]; check != nil {
					healthPorts[file] = check.Port
					if check.PortSpecification != "USE_FIXED_PORT" {
						t.Errorf("%s: %s: the port of the proxy is not that of the traffic", file, check.PortSpecification)
					}
					if isGRPC := c.Type == "GRPC"; (check.RequestPath == "") != isGRPC {
						t.Errorf("%s: a check of type %s with the path %q", file, c.Type, check.RequestPath)
					}
				}
			case *backendConfig:
				healthPorts[file] = o.Spec.HealthCheck.Port
			case *networking.Ingress:
				healthPorts[file] = parsePort(t, o.Annotations["alb.ingress.kubernetes.io/healthcheck-port"])
			case *targetGroupConfiguration:
				healthPorts[file] = parsePort(t, o.Spec.DefaultConfiguration.HealthCheckConfig.Port)
			}
		}
	}
	if len(healthPorts) != 6 {
		t.Errorf("%d load balancers ask, want 6: %v", len(healthPorts), healthPorts)
	}
	for _, p := range all {
		want := port("health", p.containers()...)
		if want == 0 {
			continue // no proxy
		}
		for file, got := range healthPorts {
			if got != want {
				t.Errorf("%s asks the port %d, and %s has %d", file, got, p.file, want)
			}
		}
	}
}

func parsePort(t *testing.T, text string) int32 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Errorf("a port: %v", err)
	}
	return int32(n)
}

// TestAWS checks what makes an AWS load balancer ask the proxy, judge by its code, and send traffic to the server.
func TestAWS(t *testing.T) {
	t.Parallel()
	services := make(map[string][]string) // the names of their ports
	var ingresses []*networking.Ingress
	var groups []*targetGroupConfiguration
	for _, objects := range objects(t) {
		for _, object := range objects {
			switch o := object.(type) {
			case *core.Service:
				for _, port := range o.Spec.Ports {
					services[o.Name] = append(services[o.Name], port.Name)
				}
			case *networking.Ingress:
				ingresses = append(ingresses, o)
			case *targetGroupConfiguration:
				groups = append(groups, o)
			}
		}
	}
	if len(ingresses) != 1 || len(groups) != 1 {
		t.Fatalf("%d Ingresses and %d TargetGroupConfigurations, want 1 each", len(ingresses), len(groups))
	}
	group := groups[0].Spec.DefaultConfiguration
	check := group.HealthCheckConfig
	if got := []string{group.TargetType, group.ProtocolVersion, check.Protocol, check.Path, check.Matcher.GRPCCode}; !slices.Equal(got, []string{"ip", "GRPC", "HTTP", "/AWS.ALB/healthcheck", "0"}) {
		t.Errorf("the target group: %q", got)
	}
	if name := groups[0].Spec.TargetReference.Name; services[name] == nil {
		t.Errorf("there is no Service %s", name)
	}
	ingress := ingresses[0]
	for name, want := range map[string]string{
		"backend-protocol-version": "GRPC",
		"healthcheck-path":         "/AWS.ALB/healthcheck",
		"success-codes":            "0",
		"healthcheck-protocol":     "HTTP",
		"target-type":              "ip",
		"listen-ports":             `[{"HTTPS":443}]`,
	} {
		if got := ingress.Annotations["alb.ingress.kubernetes.io/"+name]; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, rule := range ingress.Spec.Rules {
		for _, path := range rule.HTTP.Paths {
			to := path.Backend.Service
			if !slices.Contains(services[to.Name], to.Port.Name) {
				t.Errorf("there is no Service %s with a port %s", to.Name, to.Port.Name)
			}
		}
	}
}

// numbers are those of a pod's ports.
func numbers(p pod) []int32 {
	var all []int32
	for _, c := range p.containers() {
		for _, port := range c.Ports {
			all = append(all, port.ContainerPort)
		}
	}
	return all
}

// TestPolicies checks that each pod with a proxy has a policy that lets not everybody connect to it.
func TestPolicies(t *testing.T) {
	t.Parallel()
	proxies := 0
	for _, p := range pods(t) {
		guarded := []string{"health", "metrics"}
		if port("health", p.containers()...) == 0 {
			continue // no proxy
		}
		proxies++
		selected := false
		for file, objects := range objects(t) {
			for _, object := range objects {
				policy, ok := object.(*networking.NetworkPolicy)
				if !ok || !selects(policy.Spec.PodSelector, p.labels) || !slices.Contains(policy.Spec.PolicyTypes, networking.PolicyTypeIngress) {
					continue
				}
				selected = true
				for _, rule := range policy.Spec.Ingress {
					for _, name := range guarded {
						number := port(name, p.containers()...)
						reaches := len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(r networking.NetworkPolicyPort) bool {
							return r.Port == nil || r.Port.StrVal == name || r.Port.IntVal == number
						})
						if reaches && len(rule.From) == 0 {
							t.Errorf("%s: %s lets everybody connect to the port %s of %s", file, policy.Name, name, p.file)
						}
					}
				}
			}
		}
		if !selected {
			t.Errorf("%s: no NetworkPolicy says who may connect to the proxy", p.file)
		}
	}
	if proxies != 4 {
		t.Errorf("%d pods with a proxy, want 4", proxies)
	}
}

func selects(selector meta.LabelSelector, labels map[string]string) bool {
	for label, value := range selector.MatchLabels {
		if labels[label] != value {
			return false
		}
	}
	return len(selector.MatchExpressions) == 0
}

// TestSecrets checks that a pod mounts the Secret that cert-manager writes.
func TestSecrets(t *testing.T) {
	t.Parallel()
	for file, objects := range objects(t) {
		for _, object := range objects {
			certificate, ok := object.(*certmanager.Certificate)
			if !ok {
				continue
			}
			if !slices.ContainsFunc(pods(t), func(p pod) bool {
				return slices.ContainsFunc(p.spec.Volumes, func(v core.Volume) bool {
					return v.Secret != nil && v.Secret.SecretName == certificate.Spec.SecretName
				})
			}) {
				t.Errorf("%s: no pod mounts the Secret %s", file, certificate.Spec.SecretName)
			}
		}
	}
}

// TestTargets checks that a pod has its targets file, and what the file names, in directories that the kubelet keeps up to date; and that
// Prometheus' annotations lead to the metrics. Another test lets the program read the file.
func TestTargets(t *testing.T) {
	t.Parallel()
	found := 0
	for file, objects := range objects(t) {
		contents := make(map[string]map[string]string)
		for _, object := range objects {
			if m, ok := object.(*core.ConfigMap); ok {
				contents[m.Name] = m.Data
			}
		}
		for _, object := range objects {
			deployment, ok := object.(*apps.Deployment)
			if !ok {
				continue
			}
			template := deployment.Spec.Template
			for _, c := range template.Spec.Containers {
				for _, mount := range c.VolumeMounts {
					if mount.SubPath != "" || mount.SubPathExpr != "" {
						t.Errorf("%s: %s is mounted with subPath: it would never change", file, mount.MountPath)
					}
					if !slices.ContainsFunc(template.Spec.Volumes, func(v core.Volume) bool { return v.Name == mount.Name }) {
						t.Errorf("%s: there is no volume %s", file, mount.Name)
					}
				}
				i := slices.IndexFunc(c.Env, func(e core.EnvVar) bool { return e.Name == "GRPC_HEALTH_TARGETS_FILE" })
				if i < 0 {
					continue
				}
				found++
				dir, key := filepath.Split(c.Env[i].Value)
				under := func(path string) (volume string) {
					for _, mount := range c.VolumeMounts {
						if mount.MountPath == filepath.Dir(path) {
							return mount.Name
						}
					}
					return ""
				}
				name := under(c.Env[i].Value)
				content := ""
				for _, v := range template.Spec.Volumes {
					if v.Name == name && v.ConfigMap != nil {
						content = contents[v.ConfigMap.Name][key]
					}
				}
				if content == "" {
					t.Errorf("%s: no ConfigMap has the file %s in %s", file, key, dir)
				}
				paths := regexp.MustCompile(`(?m)["@ ](/[a-z][^"\s]+)`).FindAllStringSubmatch(content, -1)
				if len(paths) != 2 {
					t.Errorf("%s: the targets name the files %q, want 2", file, paths)
				}
				for _, path := range paths {
					if under(path[1]) == "" {
						t.Errorf("%s: nothing is mounted at %s", file, path[1])
					}
				}
				metrics := strconv.Itoa(int(port("metrics", c)))
				if a := template.Annotations; a["prometheus.io/scrape"] != "true" || a["prometheus.io/port"] != metrics || a["prometheus.io/path"] != "/metrics" {
					t.Errorf("%s: Prometheus' annotations are %q, and the port is %s", file, a, metrics)
				}
			}
		}
	}
	if found != 1 {
		t.Errorf("%d containers with a targets file, want 1", found)
	}
}
