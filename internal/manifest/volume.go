package manifest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

const defaultFileMode = 0o644

// volume is the content of a pod's volume: files, or a shared directory.
type volume struct {
	files []mesh.File // Path relative to the mount point
	dir   bool        // a directory instead
	known bool        // false: reported already, or without effect
}

// volumes reads the volumes of a pod template, by name.
func (s *setObject) volumes() map[string]volume {
	out := map[string]volume{}
	for i := range s.template.Spec.Volumes {
		v := &s.template.Spec.Volumes[i]
		at := index(s.path+".spec.volumes", i)
		if v.Name == "" {
			s.o.problem(at, "the volume has no name", "name it")
			continue
		}
		if validation.IsDNS1123Label(v.Name) != nil {
			s.o.problem(at+".name", "the volume name "+quoted(v.Name)+" is not allowed", remedyLabel)
			continue
		}
		if _, twice := out[v.Name]; twice {
			s.o.problem(at+".name", "two volumes are named "+quoted(v.Name), "rename one of them")
			continue
		}
		out[v.Name] = s.volume(v, at)
	}
	for i := range s.claims {
		name, at := s.claims[i].Name, index("spec.volumeClaimTemplates", i)
		if validation.IsDNS1123Label(name) != nil {
			s.o.problem(at+".metadata.name", "the volume name "+quoted(name)+" is not allowed", remedyLabel)
			continue
		}
		out[name] = volume{dir: true, known: true}
		s.o.warn(at, "volumeClaimTemplates are not supported: an empty directory is mounted, which lives as long as the replica",
			"keep data that must survive outside of it")
	}
	return out
}

func (s *setObject) volume(v *corev1.Volume, at string) volume {
	switch {
	case v.ConfigMap != nil:
		r := reference{kindConfigMap, v.ConfigMap.Name, v.ConfigMap.Optional, at + ".configMap"}
		return volume{known: true, files: s.mapFiles(r, v.ConfigMap.Items, mode(v.ConfigMap.DefaultMode, nil))}
	case v.Secret != nil:
		r := reference{kindSecret, v.Secret.SecretName, v.Secret.Optional, at + ".secret"}
		return volume{known: true, files: s.mapFiles(r, v.Secret.Items, mode(v.Secret.DefaultMode, nil))}
	case v.DownwardAPI != nil:
		return volume{known: true, files: s.downwardFiles(v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode, nil), at+".downwardAPI.items")}
	case v.Projected != nil:
		return volume{known: true, files: s.projected(v.Projected, at+".projected")}
	case v.EmptyDir != nil:
		return volume{known: true, dir: true}
	case v.HostPath != nil:
		s.o.warn(at, "hostPath volume "+quoted(v.Name)+" is not mounted: the program sees the machine's files at their own paths",
			"let the program use "+v.HostPath.Path)
		return volume{}
	case v.VolumeSource == corev1.VolumeSource{}:
		// Kubernetes' default.
		return volume{known: true, dir: true}
	}
	s.o.warn(at, "the kind of volume "+quoted(v.Name)+" is not supported: an empty directory is mounted, which lives as long as the replica",
		"keep data that must survive outside of it")
	return volume{known: true, dir: true}
}

func (s *setObject) projected(p *corev1.ProjectedVolumeSource, at string) []mesh.File {
	var files []mesh.File
	for i := range p.Sources {
		source, at := &p.Sources[i], index(at+".sources", i)
		switch {
		case source.ConfigMap != nil:
			r := reference{kindConfigMap, source.ConfigMap.Name, source.ConfigMap.Optional, at + ".configMap"}
			files = append(files, s.mapFiles(r, source.ConfigMap.Items, mode(p.DefaultMode, nil))...)
		case source.Secret != nil:
			r := reference{kindSecret, source.Secret.Name, source.Secret.Optional, at + ".secret"}
			files = append(files, s.mapFiles(r, source.Secret.Items, mode(p.DefaultMode, nil))...)
		case source.DownwardAPI != nil:
			files = append(files, s.downwardFiles(source.DownwardAPI.Items, mode(p.DefaultMode, nil), at+".downwardAPI.items")...)
		default:
			s.o.warn(at, "only configMap, secret and downwardAPI can be projected, this source is left out", "nothing to do, unless the program reads it")
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(files, func(f mesh.File) bool {
		twice := seen[f.Path]
		if twice {
			s.o.problem(at, "two sources make the file "+quoted(f.Path), "give one of them another path")
		}
		seen[f.Path] = true
		return twice
	})
}

// mapFiles are the files of a ConfigMap or Secret: the named items, or all.
func (s *setObject) mapFiles(r reference, items []corev1.KeyToPath, def uint32) []mesh.File {
	var files []mesh.File
	if len(items) == 0 {
		d := s.o.find(r)
		if d == nil {
			return nil
		}
		for _, key := range slices.Sorted(maps.Keys(d.keys)) {
			files = append(files, mesh.File{Path: key, Data: d.keys[key], Mode: def})
		}
		return files
	}
	for i := range items {
		item := r
		item.path = index(r.path+".items", i)
		data, ok := s.o.findKey(item, items[i].Key)
		if ok && s.checkRelative(items[i].Path, item.path+".path") {
			files = append(files, mesh.File{Path: path.Clean(items[i].Path), Data: data, Mode: mode(items[i].Mode, &def)})
		}
	}
	return files
}

func (s *setObject) downwardFiles(items []corev1.DownwardAPIVolumeFile, def uint32, at string) []mesh.File {
	var files []mesh.File
	for i := range items {
		item, at := &items[i], index(at, i)
		if !s.checkRelative(item.Path, at+".path") {
			continue
		}
		f := mesh.File{Path: path.Clean(item.Path), Mode: mode(item.Mode, &def)}
		switch {
		case item.FieldRef == nil:
			s.o.problem(at, "the file "+quoted(item.Path)+" needs fieldRef", "write one; resourceFieldRef works in env only")
			continue
		case item.FieldRef.FieldPath == "metadata.labels", item.FieldRef.FieldPath == "metadata.annotations", // in files only
			s.o.checkFieldPath(item.FieldRef.FieldPath, at+".fieldRef.fieldPath"):
			f.FieldPath = item.FieldRef.FieldPath
		default:
			continue
		}
		files = append(files, f)
	}
	return files
}

func mode(m *int32, def *uint32) uint32 {
	switch {
	case m != nil:
		return uint32(*m) & 0o777
	case def != nil:
		return *def
	}
	return defaultFileMode
}

// checkRelative keeps files inside their mount point.
func (s *setObject) checkRelative(p, at string) bool {
	if p == "" || path.IsAbs(p) || slices.Contains(strings.Split(p, "/"), "..") || strings.IndexByte(p, 0) >= 0 {
		s.o.problem(at, "the path "+quoted(p)+" must be relative and without ..", "correct the path")
		return false
	}
	return true
}

// mounts are the files and directories that container c sees.
func (s *setObject) mounts(c *corev1.Container, volumes map[string]volume, at string) (files []mesh.File, dirs []mesh.Dir) {
	seen := map[string]bool{}
	for i := range c.VolumeMounts {
		m, at := &c.VolumeMounts[i], index(at+".volumeMounts", i)
		v, ok := volumes[m.Name]
		switch {
		case !ok:
			remedy := "add it under volumes"
			if near := nearest(m.Name, volumes); near != "" {
				remedy = "did you mean " + near + "?"
			}
			s.o.problem(at+".name", "the pod has no volume named "+quoted(m.Name), remedy)
			continue
		case !path.IsAbs(m.MountPath) || path.Clean(m.MountPath) == "/" || strings.IndexByte(m.MountPath, 0) >= 0:
			s.o.problem(at+".mountPath", "mountPath "+quoted(m.MountPath)+" must be an absolute path below /", "correct the path")
			continue
		case seen[path.Clean(m.MountPath)]:
			s.o.problem(at+".mountPath", "two volumes are mounted at "+m.MountPath, "mount one of them elsewhere")
			continue
		case m.SubPathExpr != "":
			s.o.problem(at+".subPathExpr", "subPathExpr is not supported", "use subPath")
			continue
		case m.SubPath != "" && !s.checkRelative(m.SubPath, at+".subPath"):
			continue
		}
		target := path.Clean(m.MountPath)
		seen[target] = true
		switch {
		case !v.known:
		case v.dir:
			if m.ReadOnly {
				s.o.warn(at+".readOnly", "readOnly has no effect here: container "+c.Name+" can write to "+target, "nothing to do, unless you rely on it")
			}
			dirs = append(dirs, mesh.Dir{Path: target, Volume: path.Join(m.Name, m.SubPath)})
		case len(v.files) == 0: // as Kubernetes shows a volume without keys
			dirs = append(dirs, mesh.Dir{Path: target, Volume: m.Name})
		default:
			files = append(files, s.mountFiles(v.files, target, m.SubPath, at)...)
		}
	}
	return files, dirs
}

// mountFiles moves the files of a volume to their mount point. A directory, be
// it the whole volume or one of it, hides what is there otherwise; a single
// file does not.
func (s *setObject) mountFiles(files []mesh.File, target, subPath, at string) []mesh.File {
	var out []mesh.File
	sub := path.Clean(subPath)
	for _, f := range files {
		switch rest, below := strings.CutPrefix(f.Path, sub+"/"); {
		case subPath == "":
			f.Path, f.Mount = path.Join(target, f.Path), target
		case f.Path == sub:
			f.Path = target
		case below:
			f.Path, f.Mount = path.Join(target, rest), target
		default:
			continue
		}
		out = append(out, f)
	}
	if subPath != "" && len(out) == 0 && len(files) > 0 {
		s.o.problem(at+".subPath", "the volume has no file "+quoted(subPath), "name a key of it")
	}
	return out
}

// mounted is what one container of the pod mounts.
type mounted struct {
	c      *corev1.Container
	path   string
	mounts []mesh.Mount
}

// has reports whether the container itself mounts something at target.
func (m *mounted) has(target string) bool {
	return slices.ContainsFunc(m.mounts, func(o mesh.Mount) bool { return o.Path == target })
}

// checkMounts reports what containers of the pod mount over each other. In a
// cluster each has its own mounts; here they are the case's.
func (s *setObject) checkMounts() {
	for i := range s.mounted {
		for j := range s.mounted[:i] {
			s.checkMountsOf(&s.mounted[j], &s.mounted[i])
		}
	}
}

// checkMountsOf reports at the mounts of b.
func (s *setObject) checkMountsOf(a, b *mounted) {
	const remedy = "mount one of them at another path: the containers of a pod share one file system here"
	for i := range a.mounts {
		for j := range b.mounts {
			ma, mb := &a.mounts[i], &b.mounts[j]
			problem := ""
			switch {
			case ma.Path == mb.Path:
				if ma.Hides(mb) {
					problem = fmt.Sprintf("containers %s and %s of one pod mount different content at %s", a.c.Name, b.c.Name, mb.Path)
				}
			case ma.Hides(mb) && !b.has(ma.Path):
				problem = fmt.Sprintf("what container %s mounts at %s hides what container %s mounts at %s", a.c.Name, ma.Path, b.c.Name, mb.Path)
			case mb.Hides(ma) && !a.has(mb.Path):
				problem = fmt.Sprintf("what container %s mounts at %s hides what container %s mounts at %s", b.c.Name, mb.Path, a.c.Name, ma.Path)
			}
			if problem != "" {
				s.o.problem(b.field(mb.Path), problem, remedy)
			}
		}
	}
}

// field is where the file says that the container mounts something at target.
func (m *mounted) field(target string) string {
	i := slices.IndexFunc(m.c.VolumeMounts, func(v corev1.VolumeMount) bool { return path.Clean(v.MountPath) == target })
	return index(m.path+".volumeMounts", i) + ".mountPath"
}
