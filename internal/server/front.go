package server

import (
	"net/http"
	"path"
	"strings"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// front stands before all routes. A body in chunks ends its connection, and so does
// a protocol that is not HTTP/1.1: where a proxy before us counted the body in another
// way, because a length was given too, what it took for the rest of the body is not
// read as another request (RFC 9112, 6.1). A path that is not clean leads nowhere,
// instead of to where it would.
func front(routes http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		modern := r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.Method != http.MethodConnect
		if len(r.TransferEncoding) > 0 || !modern {
			w.Header().Set("Connection", "close")
		}
		if !clean(r.URL.EscapedPath()) || r.Method == http.MethodConnect {
			nowhere(w, r)
			return
		}
		routes.ServeHTTP(w, r)
	})
}

func clean(p string) bool {
	return p == "/" || p == path.Clean(p) && strings.HasPrefix(p, "/")
}

// nowhere answers what leads to no route.
func nowhere(w http.ResponseWriter, r *http.Request) {
	requestID := id.New().String()
	w.Header().Set(requestIDHeader, requestID)
	writeProblem(w, problem(errs.New(errs.NotFound, "there is nothing at %s %s; /api/v1/openapi.json lists what there is", errs.Clip(r.Method), errs.Clip(r.URL.Path)), requestID))
}
