package local_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vitrine-mesh/vitrine/internal/manifest"
	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// volumeJob looks at its volumes: at /usr/share there is a lot on the host, and
// of what it sees there only the ConfigMap shall be.
const volumeJob = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: "blue\n", shape: "round\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {token: "sesame\n"}
---
apiVersion: batch/v1
kind: Job
metadata: {name: look}
spec:
  template:
    spec:
      restartPolicy: Never
      volumes:
      - {name: conf, configMap: {name: settings}}
      - {name: keys, secret: {secretName: keys, defaultMode: 0400, items: [{key: token, path: deep/token}]}}
      - {name: none, configMap: {name: nosuch, optional: true}}
      containers:
      - name: look
        command: [sh, -c, "PROGRAM"]
        volumeMounts:
        - {name: conf, mountPath: /usr/share}
        - {name: conf, mountPath: /etc/colour, subPath: colour}
        - {name: keys, mountPath: /keys}
        - {name: none, mountPath: /none}
`

// TestVolumesFromTheManifest follows a ConfigMap and a Secret from their YAML
// into the case: a volume hides what is at its mount point, one file of it
// (subPath) does not.
func TestVolumesFromTheManifest(t *testing.T) {
	program := strings.Join([]string{
		"echo share: $(ls /usr/share)", "echo colour: $(cat /usr/share/colour /etc/colour)",
		"echo keys: $(ls /keys) $(cat /keys/deep/token) $(stat -c %a /keys/deep/token)", "echo none: $(ls -A /none | wc -l)",
		"test -e /etc/passwd && echo etc is whole",
	}, "; ")
	path := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(volumeJob, "PROGRAM", program, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	objects, diags := manifest.Load([]string{path}, manifest.Options{})
	if objects == nil {
		t.Fatalf("load: %v", diags)
	}
	w := newWorld(t)
	w.apply(t, objects.Sets...)
	w.settled(t)
	for _, line := range []string{
		"share: colour shape", "colour: blue blue", "keys: deep sesame 400", "none: 0", "etc is whole",
	} {
		w.printed(t, line)
	}
	if entries, err := os.ReadDir("/usr/share"); err != nil || len(entries) < 3 {
		t.Errorf("the host's own /usr/share: %d entries, %v", len(entries), err)
	}
}

// TestVolumesLastAsLongAsThePod: what a program keeps in an emptyDir outlives its proxy,
// as it outlives a container in Kubernetes, but not its pod, though the next one of a
// StatefulSet has its name.
func TestVolumesLastAsLongAsThePod(t *testing.T) {
	w := newWorld(t)
	keeper := func(word string) mesh.WorkloadSet {
		set := deployment("db", 1)
		set.Kind = mesh.KindStatefulSet
		set.Containers[0].Args = []string{"sh", "-c", "echo x >> log; echo " + word + " $(wc -l < log); exec sleep 1000"}
		set.Containers[0].Dir, set.Containers[0].Dirs = "/srv/data", []mesh.Dir{{Path: "/srv/data", Volume: "data"}}
		set.Containers[0].Ports = nil
		return set
	}
	w.apply(t, keeper("first"))
	w.printed(t, "first 1")
	if err := syscall.Kill(w.settled(t)[0].ProxyPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.printed(t, "first 2")
	w.apply(t)
	eventually(t, func() error {
		left, err := filepath.Glob(filepath.Join(w.dir, "data", "pods", "*", "*"))
		if err == nil && len(left) > 0 {
			return fmt.Errorf("the pod left %q", left)
		}
		return err
	})
	w.apply(t, keeper("second"))
	w.printed(t, "second 1")
}
