package server

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/auth"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

var pathArg = regexp.MustCompile(`\{(\w+)\}`)

// document describes every route, from the types it really reads and writes.
func document(routes []Route, version string) *huma.OpenAPI {
	reg := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "NovaCron", Version: version,
			Description: "One private cloud from a set of Linux machines. Errors are application/problem+json with a stable code.",
			License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Components: &huma.Components{
			Schemas:         reg,
			SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}},
		},
		Paths: map[string]*huma.PathItem{},
	}
	problem := reg.Schema(typeOf[api.Error](), true, "")
	for _, rt := range routes {
		op := operation(reg, rt)
		op.Responses["default"] = &huma.Response{Description: "What went wrong", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}}
		doc.AddOperation(op)
	}
	return doc
}

func operation(reg huma.Registry, rt Route) *huma.Operation {
	status := rt.Status
	if status == 0 {
		status = http.StatusOK
	}
	ok := &huma.Response{Description: http.StatusText(status)}
	switch {
	case rt.reply != nil:
		ok.Content = map[string]*huma.MediaType{"application/json": {Schema: reg.Schema(rt.reply, true, rt.ID)}}
	case rt.stream != "":
		ok.Description = rt.stream
	}
	op := &huma.Operation{
		Method: rt.Method, Path: rt.Path, OperationID: rt.ID, Summary: rt.Summary, Tags: []string{string(rt.Need.Resource)},
		Responses: map[string]*huma.Response{strconv.Itoa(status): ok},
	}
	if rt.Need.Resource != auth.Public {
		op.Security = []map[string][]string{{"token": {}}}
	}
	for _, m := range pathArg.FindAllStringSubmatch(rt.Path, -1) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: m[1], In: "path", Required: true, Schema: &huma.Schema{Type: "string"}})
	}
	for _, p := range rt.Query {
		op.Parameters = append(op.Parameters, &huma.Param{Name: p.Name, In: "query", Description: p.Doc, Schema: &huma.Schema{Type: "string"}})
	}
	for _, h := range headers(rt) {
		op.Parameters = append(op.Parameters, &huma.Param{Name: h, In: "header", Schema: &huma.Schema{Type: "string"}})
	}
	if rt.body != nil {
		op.RequestBody = &huma.RequestBody{Required: !optionalBody(rt), Content: map[string]*huma.MediaType{"application/json": {Schema: reg.Schema(rt.body, true, rt.ID)}}}
	} else if rt.bytes {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {}}}
	}
	return op
}

// headers lists what a route reads besides its body.
func headers(rt Route) []string {
	onVM := strings.HasPrefix(rt.Path, "/api/v1/vms/{vm}")
	switch {
	case rt.ID == "createVMConsoleTicket":
		return nil
	case rt.ID == "createVM", rt.ID == "createImage", rt.ID == "createImageUpload", rt.ID == "drainNode", rt.ID == "returnNode":
		return []string{"Idempotency-Key"}
	case rt.ID == "addVMDisk", rt.ID == "cloneVM", rt.ID == "migrateVM":
		return []string{"Idempotency-Key", "If-Match"}
	case rt.ID == "appendImageUpload":
		return []string{offsetHeader, completeHeader, "Digest"}
	case rt.bytes:
		return []string{"Digest"}
	case onVM && rt.Method != http.MethodGet, strings.HasSuffix(rt.ID, "cordonNode"), rt.ID == "removeNode":
		return []string{"If-Match"}
	default:
		return nil
	}
}

func (s *Server) openAPI(w http.ResponseWriter, _ *Request) error {
	b, err := json.Marshal(document(s.table(), s.opts.Version))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(b)
	return ignore(err)
}
