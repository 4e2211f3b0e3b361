package api

import (
	"encoding/json"
	"time"
)

// DocumentMeta is what every document that is applied begins with. What a read
// document has besides is taken and left alone.
type DocumentMeta struct {
	Kind string `json:"kind"`
	// ID and Revision tie the document to the object it was read from: applied to
	// another one, or to one that has changed since, it is refused.
	ID       string             `json:"id,omitempty"`
	Name     string             `json:"name"`
	Project  string             `json:"project,omitempty"`
	Labels   *map[string]string `json:"labels,omitempty"`
	Revision *int64             `json:"revision,omitempty"`
	// CreatedAt, UpdatedAt and Status are the server's: they are not looked at.
	CreatedAt *time.Time      `json:"created_at,omitempty"`
	UpdatedAt *time.Time      `json:"updated_at,omitempty"`
	Status    json.RawMessage `json:"status,omitempty"`
}

// VMDocument declares a VM. Fields that are absent stay as they are.
type VMDocument struct {
	DocumentMeta
	Spec VMDocumentSpec `json:"spec"`
}

// VMDocumentSpec is what can be declared of a VM. Image and NICs do not change
// once it is made.
type VMDocumentSpec struct {
	CPUs        *int   `json:"cpus,omitempty"`
	MemoryBytes *Bytes `json:"memory_bytes,omitempty"`
	// Machine is what the guest sees beside that.
	Machine *VMMachine        `json:"machine,omitempty"`
	Image   *string           `json:"image,omitempty"`
	Power   *string           `json:"power,omitempty"` // "on" or "off"
	Disks   *[]VMDiskDocument `json:"disks,omitempty"`
	NICs    *[]VMNICDocument  `json:"nics,omitempty"`
	// CloudInit is the whole of it; one with nothing in it takes it away.
	CloudInit *VMCloudInit `json:"cloud_init,omitempty"`
	// SeedImage is the CD that the guest finds instead; empty takes it away.
	SeedImage *string `json:"seed_image,omitempty"`
	// CDROM is the CD in the drive whose medium changes at any time; empty for none.
	CDROM     *string `json:"cdrom,omitempty"`
	Protected *bool   `json:"protected,omitempty"`
	// RestartPolicy is never, on_failure or always.
	RestartPolicy *string `json:"restart_policy,omitempty"`
	// DrainPolicy is live, cold, stop or refuse.
	DrainPolicy *string `json:"drain_policy,omitempty"`
	// Autostart, StartOrder and StartDelaySeconds say what a host that starts does with
	// it.
	Autostart         *bool  `json:"autostart,omitempty"`
	StartOrder        *int   `json:"start_order,omitempty"`
	StartDelaySeconds *int64 `json:"start_delay_seconds,omitempty"`
	// CPUWeight and CPUCapPercent are what it may take of its node's processors.
	CPUWeight     *int `json:"cpu_weight,omitempty"`
	CPUCapPercent *int `json:"cpu_cap_percent,omitempty"`
}

// VMDiskDocument declares a disk: the one with the id, else the one in the slot,
// else the one at this place of the list.
type VMDiskDocument struct {
	ID        string `json:"id,omitempty"`
	Slot      *int   `json:"slot,omitempty"`
	SizeBytes Bytes  `json:"size_bytes,omitempty"`
	Image     string `json:"image,omitempty"`
	// Pool is the storage pool that it is in; it does not change.
	Pool string `json:"pool,omitempty"`
	// Limits are all of them; with nothing in it, there are none.
	Limits *DiskLimits `json:"limits,omitempty"`
}

// VMNICDocument declares a network interface.
type VMNICDocument struct {
	ID       string    `json:"id,omitempty"`
	MAC      string    `json:"mac,omitempty"`
	Bridge   string    `json:"bridge,omitempty"`
	Forwards []Forward `json:"forwards,omitempty"`
}

// ImageDocument declares an image. It names content and does not hold it.
type ImageDocument struct {
	DocumentMeta
	Spec ImageDocumentSpec `json:"spec"`
}

// ImageDocumentSpec is what can be declared of an image.
type ImageDocumentSpec struct {
	Type    *string         `json:"type,omitempty"`
	Cmdline *string         `json:"cmdline,omitempty"`
	Files   *[]ImageContent `json:"files,omitempty"`
	// Aliases are all that it answers to besides its name.
	Aliases *[]string `json:"aliases,omitempty"`
}

// ImageContent names a file of an image by what is in it.
type ImageContent struct {
	// Role is disk, kernel, initrd or iso.
	Role   string `json:"role"`
	SHA256 string `json:"sha256"`
}

// NodeDocument declares what an operator decides of a node.
type NodeDocument struct {
	DocumentMeta
	Spec NodeDocumentSpec `json:"spec"`
}

// NodeDocumentSpec is what can be declared of a node.
type NodeDocumentSpec struct {
	Schedulable *bool `json:"schedulable,omitempty"`
	// ShutdownPolicy is stop, suspend or leave.
	ShutdownPolicy *string `json:"shutdown_policy,omitempty"`
}

// Apply brings objects to what documents declare of them.
type Apply struct {
	// Documents are VMDocument, ImageDocument or NodeDocument, by their kind; at most
	// 500 of them.
	Documents []json.RawMessage `json:"documents"`
}

// Applied is what became of documents, or in a dry run what would.
type Applied struct {
	// Results stand in the order of the documents.
	Results []ApplyResult `json:"results"`
}

// ApplyResult is what became of one document.
type ApplyResult struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	ID   string `json:"id,omitempty"`
	// Action is create, change, none, refused or not_tried. In a dry run, the first
	// two are what would be.
	Action string `json:"action"`
	// Fields are JSON pointers to what differs.
	Fields []string `json:"fields,omitempty"`
	// Before and After are the documents that declare the object as it is and as it
	// will be; Before is absent for one that does not exist.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// Job makes the change; absent when it is made.
	Job string `json:"job,omitempty"`
	// More: this was the first of several changes of the object. Apply the document
	// again when the job has ended.
	More bool `json:"more,omitempty"`
	// Error is why it was refused. Its fields are pointers into this document.
	Error *Error `json:"error,omitempty"`
}

// Document gives the document that declares a VM as it is, without what belongs
// to this one alone: ids, slots, addresses, revision, status.
func (v VM) Document() VMDocument {
	on := v.Spec.Power
	disks, nics := []VMDiskDocument{}, []VMNICDocument{}
	d := VMDocument{DocumentMeta: v.bare(), Spec: VMDocumentSpec{
		CPUs: &v.Spec.CPUs, MemoryBytes: &v.Spec.MemoryBytes, Machine: v.Spec.Machine, Power: &on, Disks: &disks, NICs: &nics, CloudInit: v.Spec.CloudInit,
	}}
	if v.Spec.Image != "" {
		d.Spec.Image = &v.Spec.Image
	}
	if v.Spec.SeedImage != "" {
		d.Spec.SeedImage = &v.Spec.SeedImage
	}
	if v.Spec.CDROM != "" {
		d.Spec.CDROM = &v.Spec.CDROM
	}
	v.Spec.policies(&d.Spec)
	for _, k := range v.Spec.Disks {
		one := VMDiskDocument{SizeBytes: k.SizeBytes, Image: k.Image, Pool: k.Pool, Limits: k.Limits}
		if k.Slot == 0 && k.Image == v.Spec.Image {
			one.Image = "" // it is made from the VM's image by itself
		}
		disks = append(disks, one)
	}
	for _, n := range v.Spec.NICs {
		nics = append(nics, VMNICDocument{Bridge: n.Bridge, Forwards: n.Forwards})
	}
	return d
}

// Document gives the document that declares an image as it is.
func (i Image) Document() ImageDocument {
	d := ImageDocument{DocumentMeta: i.bare(), Spec: ImageDocumentSpec{Type: &i.Spec.Type}}
	if i.Spec.Cmdline != "" {
		d.Spec.Cmdline = &i.Spec.Cmdline
	}
	if len(i.Spec.Aliases) > 0 {
		d.Spec.Aliases = &i.Spec.Aliases
	}
	var files []ImageContent
	for _, f := range i.Status.Files {
		files = append(files, ImageContent{Role: f.Role, SHA256: f.SHA256})
	}
	if files != nil {
		d.Spec.Files = &files
	}
	return d
}

// Document gives the document that declares a node as it is.
func (n Node) Document() NodeDocument {
	return NodeDocument{DocumentMeta: n.bare(), Spec: NodeDocumentSpec{Schedulable: &n.Spec.Schedulable, ShutdownPolicy: &n.Spec.ShutdownPolicy}}
}

// bare keeps what a document means anywhere.
func (m Meta) bare() DocumentMeta {
	d := DocumentMeta{Kind: m.Kind, Name: m.Name}
	if len(m.Labels) > 0 {
		d.Labels = &m.Labels
	}
	return d
}

// ofNode declares what is not as by default of what its node does.
func (s VMSpec) ofNode(d *VMDocumentSpec) {
	if s.DrainPolicy != "" && s.DrainPolicy != "live" {
		d.DrainPolicy = &s.DrainPolicy
	}
	if !s.Autostart {
		d.Autostart = &s.Autostart
	}
	if s.StartOrder != 0 {
		d.StartOrder = &s.StartOrder
	}
	if s.StartDelaySeconds != 0 {
		d.StartDelaySeconds = &s.StartDelaySeconds
	}
}

// policies declares what is not as by default.
func (s VMSpec) policies(d *VMDocumentSpec) {
	s.ofNode(d)
	if s.RestartPolicy != "" && s.RestartPolicy != "never" {
		d.RestartPolicy = &s.RestartPolicy
	}
	if s.CPUWeight != 0 && s.CPUWeight != 100 {
		d.CPUWeight = &s.CPUWeight
	}
	if s.CPUCapPercent != 0 {
		d.CPUCapPercent = &s.CPUCapPercent
	}
	if s.Protected {
		d.Protected = &s.Protected
	}
}
