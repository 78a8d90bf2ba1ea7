package main

import (
	"archive/tar"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	serverID       = 999 // the official image's numbers for user and group postgres
	dataDir        = "/var/lib/postgresql/data"
	entrypointPath = "/usr/bin/docker-entrypoint.sh"
)

//go:embed entrypoint.sh
var entrypoint string

// imageTexts are the small files that the image needs and this machine does
// not have in this form.
var imageTexts = map[string]string{
	"/etc/passwd": fmt.Sprintf("root:x:0:0:root:/root:/bin/sh\npostgres:x:%d:%[1]d::/var/lib/postgresql:/bin/sh\n", serverID),
	"/etc/group":  fmt.Sprintf("root:x:0:\npostgres:x:%d:\n", serverID),
	// getent and the resolver read files, then ask DNS.
	"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
	entrypointPath:       entrypoint,
}

// imageDirs are directories with other rights than root's 0755.
var imageDirs = []*tar.Header{
	{Name: "/tmp", Mode: 0o1777},
	{Name: "/run/postgresql", Mode: 0o775, Uid: serverID, Gid: serverID},
	{Name: "/var/run/postgresql", Mode: 0o775, Uid: serverID, Gid: serverID},
	{Name: "/var/lib/postgresql", Mode: 0o755, Uid: serverID, Gid: serverID},
	{Name: dataDir, Mode: 0o700, Uid: serverID, Gid: serverID},
}

// writeTar writes the image's file system. Parents come before children, in an
// order that does not change from run to run.
func (r *rootfs) writeTar(to io.Writer) error {
	w := &archive{tar: tar.NewWriter(to), dirs: map[string]bool{"/": true}}
	for _, path := range slices.Sorted(maps.Keys(r.links)) {
		w.entry(&tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: r.links[path], Mode: 0o777}, "")
		w.dirs[path] = true
	}
	for _, dir := range imageDirs {
		header := *dir
		header.Typeflag = tar.TypeDir
		w.entry(&header, "")
		w.dirs[dir.Name] = true
	}
	for _, path := range slices.Sorted(maps.Keys(imageTexts)) {
		w.entry(&tar.Header{Name: path, Mode: 0o755}, imageTexts[path])
	}
	for _, path := range slices.Sorted(maps.Keys(r.files)) {
		w.copy(path, r.files[path])
	}
	return errors.Join(w.err, w.tar.Close())
}

// archive writes entries until the first error, which it keeps.
type archive struct {
	tar  *tar.Writer
	dirs map[string]bool // written already
	err  error
}

// entry writes one entry that is owned by root unless the header says more.
func (w *archive) entry(header *tar.Header, content string) {
	if w.header(header, int64(len(content))); w.err == nil {
		_, w.err = io.WriteString(w.tar, content)
	}
}

// copy writes a file of this machine. The server's user must be able to read
// it, whatever its rights are here.
func (w *archive) copy(path, file string) {
	if w.err != nil {
		return
	}
	source, err := os.Open(file)
	if err != nil {
		w.err = err
		return
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		w.err = err
		return
	}
	mode := int64(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	if w.header(&tar.Header{Name: path, Mode: mode}, info.Size()); w.err == nil {
		_, w.err = io.Copy(w.tar, source)
	}
}

// header writes the parents that are missing, then the header.
func (w *archive) header(header *tar.Header, size int64) {
	if dir := filepath.Dir(header.Name); !w.dirs[dir] && w.err == nil {
		w.dirs[dir] = true
		w.header(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, 0)
	}
	if w.err != nil {
		return
	}
	header.Name = strings.TrimPrefix(header.Name, "/")
	header.Size = size
	if header.Typeflag == tar.TypeDir {
		header.Name += "/"
	}
	if err := w.tar.WriteHeader(header); err != nil {
		w.err = fmt.Errorf("write %s to the image: %w", header.Name, err)
	}
}
