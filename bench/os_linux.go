package main

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// datasync is fdatasync: the bytes, and what it takes to find them again.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}

// allocatedBytes returns the room that a file takes.
func allocatedBytes(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// describe fills in what the operating system knows.
func (m *machine) describe(dir string) {
	var uts syscall.Utsname
	if syscall.Uname(&uts) == nil {
		m.Kernel = "Linux " + charsText(uts.Release[:])
	}
	m.Processor = procField("/proc/cpuinfo", "model name")
	var kib int64
	if _, err := fmt.Sscanf(procField("/proc/meminfo", "MemTotal"), "%d kB", &kib); err == nil {
		m.Memory = fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20))
	}
	m.FileSystem = fileSystem(dir)
	m.Disk = diskText(dir)
}

func charsText[T int8 | uint8](chars []T) string {
	var b strings.Builder
	for _, c := range chars {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

// procField returns the value of the first line "NAME: VALUE".
func procField(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fileSystem names the file system that dir is on.
func fileSystem(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return ""
	}
	names := map[uint32]string{
		0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0x01021994: "tmpfs", 0x2FC12FC1: "zfs",
		0x794C7630: "overlayfs", 0xF2F52010: "f2fs", 0x6969: "nfs",
	}
	kind := uint32(st.Type) //nolint:gosec // G115: a magic number; its sign depends on the machine
	if name, ok := names[kind]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", kind)
}

// diskText says what the kernel tells about the disk that dir is on: its make,
// not its name.
func diskText(dir string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return ""
	}
	dev := uint64(st.Dev) //nolint:unconvert // narrower on some machines
	major, minor := dev>>8&0xfff, dev&0xff|dev>>12&0xfff00
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", major, minor))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(sys, "partition")); err == nil {
		sys = filepath.Dir(sys)
	}
	attribute := func(name string) string {
		text, err := os.ReadFile(filepath.Join(sys, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	var parts []string
	switch base := filepath.Base(sys); {
	case strings.HasPrefix(base, "vd"):
		parts = append(parts, "virtual (virtio)")
	case strings.HasPrefix(base, "nvme"):
		parts = append(parts, "NVMe "+attribute("device/model"))
	default:
		parts = append(parts, strings.TrimSpace(base+" "+attribute("device/model")))
	}
	if cache := attribute("queue/write_cache"); cache != "" {
		parts = append(parts, "write cache: "+cache)
	}
	return strings.Join(parts, ", ")
}
