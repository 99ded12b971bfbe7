package manifest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vitrine-mesh/vitrine/internal/mesh"
)

// Annotations of ours, on the pod template or the workload. The first two may
// end in "." and a container's name.
const (
	annotationCommand = "vitrine.dev/command"     // replaces the image's entry point
	annotationDir     = "vitrine.dev/working-dir" // replaces workingDir
)

const annotationPrefix = "vitrine.dev/"

// checkAnnotations reports annotations of ours that would go unread because
// they are misspelt or name no container.
func (s *setObject) checkAnnotations(path string, annotations map[string]string) {
	known := map[string]bool{annotationCommand: true, annotationDir: true}
	containers := map[string]bool{}
	for _, list := range [][]corev1.Container{s.template.Spec.InitContainers, s.template.Spec.Containers} {
		for i := range list {
			containers[list[i].Name] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(key, annotationPrefix) {
			continue
		}
		name, container, named := strings.Cut(strings.TrimPrefix(key, annotationPrefix), ".")
		name = annotationPrefix + name
		remedy := "remove it or correct its name"
		switch {
		case !known[name]:
			if near := nearest(name, known); near != "" {
				remedy = "did you mean " + near + "?"
			}
			s.o.problem(mapKey(path, key), "the annotation "+quoted(key)+" is not known", remedy)
		case named && !containers[container]:
			if near := nearest(container, containers); near != "" {
				remedy = "did you mean " + name + "." + near + "?"
			}
			s.o.problem(mapKey(path, key), "the annotation "+quoted(key)+" names no container of the pod", remedy)
		case !named && s.programs() > 1:
			s.o.problem(mapKey(path, key), "the pod has several containers, so the annotation "+quoted(key)+" is not clear",
				"write "+name+".NAME with the name of a container")
		}
	}
}

// annotation finds an annotation for container c: with its name before
// without, on the pod template before the workload. Without a name it is
// meant for the only container of a pod.
func (s *setObject) annotation(name string, c *corev1.Container) (value, path string, ok bool) {
	meta := s.o.metadata()
	for _, key := range []string{name + "." + c.Name, name} {
		if key == name && s.programs() > 1 {
			break
		}
		if value, ok = s.template.Annotations[key]; ok {
			return value, mapKey(s.path+".metadata.annotations", key), true
		}
		if value, ok = meta.Annotations[key]; ok {
			return value, mapKey("metadata.annotations", key), true
		}
	}
	return "", "", false
}

// command is what a container runs: the annotation or command, then args. It
// is nil, and reported, if neither says so.
func (s *setObject) command(c *corev1.Container, path string, env *environment) []string {
	words := env.expandAll(c.Command)
	if text, at, ok := s.annotation(annotationCommand, c); ok {
		list, err := splitCommand(text)
		if err == nil && len(list) == 0 {
			err = errors.New("no program is named")
		}
		if err != nil {
			s.o.problem(at, "the command in the annotation cannot be read: "+err.Error(),
				`write words as in a shell, or a JSON list such as ["./web", "-v"]`)
			return nil
		}
		words = list
	}
	if len(words) == 0 {
		key := annotationCommand
		if s.programs() > 1 {
			key += "." + c.Name
		}
		has := "no command"
		if c.Image != "" {
			has = "only an image, and images are not run"
		}
		s.o.problem(path, "container "+c.Name+" has "+has,
			"give it command, or the annotation "+key+" with the program to run")
		return nil
	}
	if words[0] == "" {
		s.o.problem(path+".command", "the program of container "+c.Name+" has an empty name", "name a program")
		return nil
	}
	return append(words, env.expandAll(c.Args)...)
}

// splitCommand reads a JSON list of words, or words separated by blanks with
// the quotes of a shell. Nothing is expanded.
func splitCommand(text string) ([]string, error) {
	text = strings.Trim(text, " \t\r\n")
	if strings.HasPrefix(text, "[") {
		var words []string
		if err := json.Unmarshal([]byte(text), &words); err == nil {
			return words, noNUL(text)
		}
		return nil, errors.New("it begins with [ and is not a JSON list of strings")
	}
	var words []string
	var word strings.Builder
	var quote byte
	inWord := false
	for i := 0; i < len(text); i++ {
		ch := text[i]
		switch {
		case quote == '\'' && ch != '\'':
			word.WriteByte(ch)
		case ch == '\\' && i+1 < len(text) && (quote == 0 || strings.IndexByte("\"\\$`", text[i+1]) >= 0):
			i++
			word.WriteByte(text[i])
			inWord = true
		case quote != 0 && ch == quote:
			quote = 0
		case quote == 0 && (ch == '\'' || ch == '"'):
			quote, inWord = ch, true
		case quote == 0 && strings.IndexByte(" \t\r\n", ch) >= 0:
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(ch)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, noNUL(text)
}

func noNUL(text string) error {
	if strings.IndexByte(text, 0) >= 0 || strings.Contains(text, `\u0000`) {
		return errors.New("it holds a NUL byte")
	}
	return nil
}

// workingDir is where a container's program starts: workingDir, or the
// directory of the file that describes it. out has the container's mounts.
func (s *setObject) workingDir(c *corev1.Container, out *mesh.Container, path string) string {
	dir, at := c.WorkingDir, path+".workingDir"
	if text, where, ok := s.annotation(annotationDir, c); ok {
		dir, at = text, where
	}
	if dir == "" {
		return s.o.file.dir
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(s.o.file.dir, dir)
	}
	if s.o.loader.opts.CheckPrograms && !inVolume(out, dir) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			s.o.problem(at, "the working directory "+dir+" of container "+c.Name+" does not exist on this machine",
				"create it, or name another with the annotation "+annotationDir)
		}
	}
	return filepath.Clean(dir)
}

// program makes a name with a slash absolute, and looks it up if that is
// wanted. out has the container's mounts and its working directory.
func (s *setObject) program(name string, out *mesh.Container, env *environment, path string) string {
	if strings.Contains(name, "/") && !filepath.IsAbs(name) {
		name = filepath.Join(out.Dir, name)
	}
	if !s.o.loader.opts.CheckPrograms {
		return name
	}
	search, ok := env.lookup("PATH")
	if !ok {
		search = os.Getenv("PATH")
	}
	err := findProgram(name, search)
	if filepath.IsAbs(name) && inVolume(out, name) {
		err = inFiles(out, name)
	}
	if err != nil {
		s.o.problem(path, "the program "+quoted(name)+" cannot be run: "+err.Error(), howToGet(name, err))
	}
	return name
}

var (
	errNoProgram     = errors.New("it does not exist")
	errNotInPath     = errors.New("it is in no directory of PATH")
	errNotExecutable = errors.New("it is not executable")
	errVolumeMode    = errors.New("its mode in the volume does not let anybody execute it")
)

// inVolume reports whether what is at path comes with a volume of the container, and
// not from this machine.
func inVolume(c *mesh.Container, path string) bool {
	path = filepath.Clean(path)
	below := func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	return slices.ContainsFunc(c.Dirs, func(d mesh.Dir) bool { return below(d.Path) }) ||
		slices.ContainsFunc(c.Files, func(f mesh.File) bool { return f.Path == path || f.Mount != "" && below(f.Mount) })
}

// inFiles looks a program up in volumes. What is in a directory is known only when
// the programs run, which may make it.
func inFiles(c *mesh.Container, path string) error {
	path = filepath.Clean(path)
	for i := range c.Files {
		if f := &c.Files[i]; f.Path == path {
			if f.Mode&0o111 == 0 {
				return errVolumeMode
			}
			return nil
		}
	}
	if slices.ContainsFunc(c.Dirs, func(d mesh.Dir) bool { return strings.HasPrefix(path, d.Path+"/") }) {
		return nil
	}
	return errNoProgram
}

// findProgram looks a program up as execvp does.
func findProgram(name, search string) error {
	if strings.Contains(name, "/") {
		return executable(name)
	}
	for _, dir := range filepath.SplitList(search) {
		if executable(filepath.Join(dir, name)) == nil {
			return nil
		}
	}
	return errNotInPath
}

func executable(path string) error {
	info, err := os.Stat(path) //nolint:gosec // G703: the file says what to run, so it may name any path
	switch {
	case errors.Is(err, fs.ErrPermission):
		return err
	case err != nil:
		return errNoProgram
	case info.IsDir():
		return errors.New("it is a directory")
	case info.Mode()&0o111 == 0:
		return errNotExecutable
	}
	return nil
}

// howToGet names the command that provides a missing program.
func howToGet(name string, err error) string {
	if errors.Is(err, errNotExecutable) {
		return "run chmod +x " + name
	}
	if errors.Is(err, errVolumeMode) {
		return "give the volume defaultMode: 0755"
	}
	if strings.Contains(name, "/") {
		return "build it, or correct the path, which is relative to the directory of the file"
	}
	packages := map[string]string{
		"node": "nodejs", "npm": "npm", "python3": "python3", "python": "python-is-python3", "java": "default-jre-headless",
		"ruby": "ruby", "php": "php-cli", "go": "golang", "redis-server": "redis-server", "nginx": "nginx",
		"postgres": "postgresql", "socat": "socat", "curl": "curl", "nc": "netcat-openbsd",
	}
	if pkg, ok := packages[name]; ok {
		return "install it: apt install " + pkg
	}
	return "install it, or write its path"
}
