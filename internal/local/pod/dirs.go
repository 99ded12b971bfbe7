package pod

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Dirs lists the directories root/NAMESPACE/NAME, one for each pod, in order; none
// if there is no root. With an error they are those that could be found.
func Dirs(root string) ([]string, error) {
	var dirs []string
	var errs []error
	list := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // also of a pod that ends now
			errs = append(errs, err)
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, filepath.Join(dir, e.Name()))
			}
		}
		return names
	}
	for _, namespace := range list(root) {
		dirs = append(dirs, list(namespace)...)
	}
	return dirs, errors.Join(errs...)
}
