package jail

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// loaderCache is where the loader looks up libraries first.
const loaderCache = "/etc/ld.so.cache"

// Show adds a program and the folders of the libraries it is linked with.
func (s *Spec) Show(program string) error {
	f := finder{spec: s, dirs: libraryDirs(), seen: map[string]bool{}}
	if err := f.add(program, false); err != nil {
		return fmt.Errorf("find what %s is made of: %w", program, err)
	}
	_ = s.ShowPath(loaderCache) // where the loader has none it does without
	return nil
}

// ShowPath adds a file or folder under its own path, with the links that lead to it.
func (s *Spec) ShowPath(path string) error {
	actual, err := s.trace(path)
	if err != nil {
		return err
	}
	s.Shown = append(s.Shown, actual)
	return nil
}

// trace follows a path link by link, adds the links, and gives where they lead.
func (s *Spec) trace(path string) (string, error) {
	const limit = 40 // as the kernel's
	for range limit {
		link, err := firstLink(path)
		if err != nil {
			return "", err
		}
		if link == "" {
			return path, nil
		}
		target, err := os.Readlink(link)
		if err != nil {
			return "", err
		}
		if s.Links == nil {
			s.Links = map[string]string{}
		}
		s.Links[link] = target
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Join(target, strings.TrimPrefix(path, link))
	}
	return "", fmt.Errorf("%s leads through too many links", path)
}

// firstLink gives the shortest beginning of an absolute path that is a link, or "".
func firstLink(path string) (string, error) {
	at := "/"
	for part := range strings.SplitSeq(strings.TrimPrefix(filepath.Clean(path), "/"), "/") {
		at = filepath.Join(at, part)
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		if info.Mode()&os.ModeSymlink != 0 {
			return at, nil
		}
	}
	return "", nil
}

// finder follows what programs and libraries need.
type finder struct {
	spec *Spec
	dirs []string
	seen map[string]bool
}

// add shows a program, or the folder of a library, and what it needs in turn.
func (f *finder) add(path string, library bool) error {
	if f.seen[path] {
		return nil
	}
	f.seen[path] = true
	actual, err := f.spec.trace(path)
	if err != nil {
		return err
	}
	if library {
		f.show(filepath.Dir(actual))
	} else {
		f.show(actual)
	}
	needs, interpreter, err := needed(actual)
	if err != nil {
		return err
	}
	if interpreter != "" {
		if err := f.add(interpreter, true); err != nil {
			return err
		}
	}
	for _, name := range needs {
		if err := f.library(name); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) show(path string) {
	if !slices.Contains(f.spec.Shown, path) {
		f.spec.Shown = append(f.spec.Shown, path)
	}
}

func (f *finder) library(name string) error {
	for _, dir := range f.dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return f.add(path, true)
		}
	}
	return fmt.Errorf("the library %s is in none of the loader's folders", name)
}

// needed reads what an ELF file is linked with.
func needed(path string) (libraries []string, interpreter string, err error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = file.Close() }()
	for _, p := range file.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return nil, "", err
		}
		interpreter = strings.TrimRight(string(b), "\x00")
	}
	libraries, err = file.ImportedLibraries()
	if errors.Is(err, elf.ErrNoSymbols) {
		err = nil
	}
	return libraries, interpreter, err
}

// libraryDirs are the folders in which the loader looks: those that were configured,
// then its own.
func libraryDirs() []string {
	var out []string
	files, _ := filepath.Glob("/etc/ld.so.conf.d/*.conf")
	for _, name := range append([]string{"/etc/ld.so.conf"}, files...) {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); filepath.IsAbs(line) {
				out = append(out, line)
			}
		}
	}
	return append(out, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}
