package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/cli/manifest"
	"github.com/novacron/novacron/internal/cli/output"
	"github.com/novacron/novacron/internal/vocab/errs"
)

// found is an image that is not there, and whose content lies beside the documents.
type found struct {
	create api.ImageCreate
	parts  []part
}

// imported is the action of an image whose content came with its document.
const imported = "import"

// importMissing makes the images that are refused because they are not there, of the
// content beside their documents, and judges again. Nothing is imported while another
// document is refused for a reason that this would not mend. In a dry run the images
// are told as what they would be.
func (r *applying) importMissing(ctx context.Context) error {
	missing, mend := r.missing()
	switch {
	case len(missing) == 0 || (!mend && !r.keepGoing):
		return nil
	case r.dry:
		r.tellImports(missing)
		return nil
	}
	if err := intact(ctx, missing); err != nil {
		return err
	}
	for i := range r.docs { // in their order
		img, ok := missing[i]
		if !ok {
			continue
		}
		if err := r.importFound(ctx, img); err != nil {
			return err
		}
		r.changed++
	}
	return r.judgeAgain(ctx, missing)
}

// missing finds the images whose content is here, by their place among the documents,
// and tells whether these are all that is missing.
func (r *applying) missing() (images map[int]found, all bool) {
	images, all = map[int]found{}, true
	for i, res := range r.results {
		if res.Error == nil {
			continue
		}
		if img, ok := r.content(i); ok {
			images[i] = img
		} else if !mayMiss(res) {
			all = false
		}
	}
	return images, all
}

// judgeAgain has everything judged as it is with the images that were imported.
func (r *applying) judgeAgain(ctx context.Context, missing map[int]found) (err error) {
	r.came = map[string]bool{}
	if r.results, err = judge(ctx, r.c, r.docs, r.prune); err != nil {
		return err
	}
	for i := range missing {
		if r.results[i].Action == "none" {
			r.results[i].Action = imported
		}
		r.came[r.docs[i].Name] = true
	}
	return nil
}

// mayMiss tells of a refused VM that what it misses may be one of the images.
func mayMiss(res api.ApplyResult) bool {
	return res.Kind == "vm" && res.Error.Code == string(errs.NotFound)
}

// tellImports makes the results of a dry run say which images would be imported. What
// may depend on them is not judged.
func (r *applying) tellImports(missing map[int]found) {
	for i := range r.results {
		res := &r.results[i]
		_, ok := missing[i]
		switch {
		case ok:
			res.Action, res.Error = imported, nil
		case res.Error != nil && mayMiss(*res):
			res.Action, res.Error = notTried, nil
		}
	}
}

// content finds the content of a refused image beside its document.
func (r *applying) content(i int) (found, bool) {
	d := r.docs[i]
	if d.Kind != "image" || d.File() == manifest.Stdin || !absent(r.results[i].Error) {
		return found{}, false
	}
	var doc api.ImageDocument
	if err := json.Unmarshal(d.JSON, &doc); err != nil || doc.Spec.Type == nil || doc.Spec.Files == nil {
		return found{}, false
	}
	out := found{create: api.ImageCreate{Name: d.Name, Type: *doc.Spec.Type}}
	if doc.Spec.Cmdline != nil {
		out.create.Cmdline = *doc.Spec.Cmdline
	}
	for _, f := range *doc.Spec.Files {
		path, ok := contentPath(d.File(), f.SHA256)
		if !ok {
			return found{}, false
		}
		out.parts = append(out.parts, part{f.Role, path})
	}
	return out, len(out.parts) > 0
}

// absent tells of a refusal that the image, or a part of it, is not there.
func absent(e *api.Error) bool {
	return e.Code == string(errs.NotFound) || e.Code == string(errs.InvalidState)
}

// contentPath is where the content with this hash lies beside a document.
func contentPath(document, sum string) (path string, there bool) {
	sum = strings.ToLower(sum)
	path = filepath.Join(filepath.Dir(document), contentFolder, sum)
	if len(sum) != 2*sha256.Size || strings.Trim(sum, "0123456789abcdef") != "" { // no file name of somebody's choice
		return "", false
	}
	info, err := os.Stat(path)
	return path, err == nil && info.Mode().IsRegular()
}

// intact refuses content that is not what its name says.
func intact(ctx context.Context, missing map[int]found) error {
	for _, img := range missing {
		for _, p := range img.parts {
			sum, err := hashFile(ctx, p.path)
			if err != nil {
				return errs.New(errs.HostFailure, "%s cannot be read", p.path).Because(err)
			}
			if sum != filepath.Base(p.path) {
				return errs.New(errs.ImageMismatch, "%s is damaged: its SHA-256 is %s; export the project again", p.path, sum)
			}
		}
	}
	return nil
}

// importFound makes one image.
func (r *applying) importFound(ctx context.Context, img found) error {
	fmt.Fprintf(r.err, "image %s:\n", output.Clean(img.create.Name))
	made, fresh, err := r.openImage(ctx, r.c, img.create)
	if err != nil {
		return err
	}
	if len(made.Status.Files) > 0 { // of an earlier run
		img.parts = slices.DeleteFunc(img.parts, func(p part) bool {
			return slices.ContainsFunc(made.Status.Files, func(f api.ImageFile) bool { return f.Role == p.role && f.SHA256 == filepath.Base(p.path) })
		})
	}
	if _, err := r.upload(ctx, r.c, made, img.parts, ""); err != nil {
		r.leaveHalf(ctx, r.c, made, fresh, err)
		return err
	}
	return nil
}

// hashFile gives the SHA-256 of a file of this machine.
func hashFile(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, untilDone{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// untilDone ends with its context.
type untilDone struct {
	ctx context.Context //nolint:containedctx // io.Reader has no other way to end
	r   io.Reader
}

// Read implements io.Reader.
func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}
