package memory

import (
	"math"
	"testing"
	"testing/fstest"
)

const mib = 1 << 20

// The lines of mountinfo for each kind of hierarchy.
const (
	mountV2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	mountV1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
	noise   = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
)

func TestFind(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files  map[string]string
		lambda string
		goMem  int64 // 0 is none
		want   Limit
	}{
		"nothing is known":           {want: Limit{Default, "default", 224 * mib}},
		"a file that makes no sense": {files: map[string]string{"proc/self/cgroup": "0::/\nx\n:\n", "proc/self/mountinfo": "x\n - \n" + mountV2, "sys/fs/cgroup/memory.max": "lots\n"}, want: Limit{Default, "default", 224 * mib}},
		"v2, in a container": {
			files: map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": noise + mountV2, "sys/fs/cgroup/memory.max": "67108864\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v2, no limit": {
			files: map[string]string{"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/a/memory.max": "max\n"},
			want:  Limit{Default, "default", 224 * mib},
		},
		"v2, the parent has less": {
			files: map[string]string{
				"proc/self/cgroup": "0::/pod/container\n", "proc/self/mountinfo": mountV2,
				"sys/fs/cgroup/pod/container/memory.max": "max\n", "sys/fs/cgroup/pod/memory.max": "134217728\n",
			},
			want: Limit{128 * mib, "cgroup", 112 * mib},
		},
		"v2, memory.high": {
			files: map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max": "134217728\n", "sys/fs/cgroup/memory.high": "67108864\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v2, a path of the host that is not seen": {
			files: map[string]string{"proc/self/cgroup": "0::/kubepods/pod1/c1\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max": "67108864\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v2, a path above the namespace": {
			files: map[string]string{"proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max": "67108864\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v2, of which a part is mounted": {
			files: map[string]string{
				"proc/self/cgroup": "0::/docker/abc/inner\n", "proc/self/mountinfo": "1 2 0:3 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
				"sys/fs/cgroup/inner/memory.max": "67108864\n", "sys/fs/cgroup/memory.max": "max\n",
			},
			want: Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v2, mounted at a place with a space": {
			files: map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": `1 2 0:3 / /my\040groups rw - cgroup2 none rw` + "\n", "my groups/memory.max": "67108864\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v1": {
			files: map[string]string{"proc/self/cgroup": "4:memory:/docker/x\n3:cpu:/\n", "proc/self/mountinfo": noise + mountV1, "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "67108864\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v1, no limit": {
			files: map[string]string{"proc/self/cgroup": "4:memory:/\n", "proc/self/mountinfo": mountV1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
			want:  Limit{Default, "default", 224 * mib},
		},
		"v1, no limit, with pages of 64 KiB": {
			files: map[string]string{"proc/self/cgroup": "4:memory:/\n", "proc/self/mountinfo": mountV1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854710272\n"},
			want:  Limit{Default, "default", 224 * mib},
		},
		"v1, controllers together": {
			files: map[string]string{"proc/self/cgroup": "4:cpu,memory:/\n", "proc/self/mountinfo": "1 2 0:3 / /cg/both rw - cgroup none rw,cpu,memory\n", "cg/both/memory.limit_in_bytes": "67108864\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"v1, beside v2 without the controller": {
			files: map[string]string{
				"proc/self/cgroup": "4:memory:/x\n0::/\n", "proc/self/mountinfo": mountV1 + "41 31 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
				"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "67108864\n",
			},
			want: Limit{64 * mib, "cgroup", 48 * mib},
		},
		"no mountinfo": {
			files: map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n"},
			want:  Limit{64 * mib, "cgroup", 48 * mib},
		},
		"a small cgroup": {
			files: map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max": "25165824\n"},
			want:  Limit{24 * mib, "cgroup", 12 * mib},
		},
		"Lambda":                    {lambda: "128", want: Limit{128 * mib, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 112 * mib}},
		"Lambda, much":              {lambda: "10240", want: Limit{10240 * mib, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 8960 * mib}},
		"Lambda, no number":         {lambda: "128MB", want: Limit{Default, "default", 224 * mib}},
		"Lambda, a negative number": {lambda: "-1", want: Limit{Default, "default", 224 * mib}},
		"GOMEMLIMIT":                {goMem: 48 * mib, want: Limit{48 * mib, "GOMEMLIMIT", 48 * mib}},
		"GOMEMLIMIT, much":          {goMem: 4096 * mib, want: Limit{4096 * mib, "GOMEMLIMIT", 4096 * mib}},
		"GOMEMLIMIT below the cgroup's": {
			goMem: 32 * mib, want: Limit{32 * mib, "GOMEMLIMIT", 32 * mib},
			files: map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max": "67108864\n"},
		},
		"GOMEMLIMIT above the cgroup's": {
			goMem: 1024 * mib, want: Limit{64 * mib, "cgroup", 48 * mib},
			files: map[string]string{"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2, "sys/fs/cgroup/memory.max": "67108864\n"},
		},
	} {
		root := make(fstest.MapFS)
		for name, content := range test.files {
			root[name] = &fstest.MapFile{Data: []byte(content)}
		}
		getenv := func(name string) string {
			if name == "AWS_LAMBDA_FUNCTION_MEMORY_SIZE" {
				return test.lambda
			}
			return ""
		}
		if test.goMem == 0 {
			test.goMem = math.MaxInt64
		}
		if got := Find(root, getenv, test.goMem); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// A process in each place of its cgroups. The lines are in the forms in which Linux 6.1 prints them: most rows are what it printed.
func TestFindLinux(t *testing.T) {
	t.Parallel()
	const (
		system = "27 27 0:2 / / rw - rootfs rootfs rw,size=228456k,nr_inodes=57114,inode64\n" +
			"28 27 0:20 / /proc rw,relatime - proc proc rw\n" +
			"29 27 0:21 / /sys rw,relatime - sysfs sys rw\n"
		host = system + "26 29 0:23 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
		// A container has a cgroup namespace, and a mount that was made in it.
		container = system + "30 29 0:23 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n"
		// The host's mount, seen in a cgroup namespace whose root is one and two levels below the mount's.
		above1 = system + "30 29 0:23 /.. /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw\n"
		above2 = system + "30 29 0:23 /../.. /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw\n"
		hybrid = system + "26 29 0:23 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,inode64\n" +
			"30 26 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
			"31 26 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
		hybridAbove = system + "32 29 0:23 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,inode64\n" +
			"33 32 0:24 /.. /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
			"34 32 0:25 /.. /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"

		none, mib48, mib64 = "max\n", "50331648\n", "67108864\n"
		noneV1             = "9223372036854771712\n"
	)
	for name, test := range map[string]struct {
		cgroup, mountinfo string
		files             map[string]string // below sys/fs/cgroup
		want              int64             // 0 is none
	}{
		"memory.max": {
			"0::/box\n", host,
			map[string]string{"box/memory.max": mib64, "box/memory.high": none, "other/memory.max": mib48}, 64 * mib,
		},
		"memory.max of the parent": {
			"0::/parent/child\n", host,
			map[string]string{"parent/child/memory.max": none, "parent/child/memory.high": none, "parent/memory.max": mib64, "parent/memory.high": none}, 64 * mib,
		},
		"the parent does not hand the controller down": {"0::/parent/child\n", host, map[string]string{"parent/memory.max": mib64, "parent/memory.high": none}, 64 * mib},
		"a threaded cgroup, which has no such files":   {"0::/thr/worker\n", host, map[string]string{"thr/memory.max": mib64, "thr/memory.high": none}, 64 * mib},
		"memory.high": {"0::/high\n", host, map[string]string{"high/memory.max": none, "high/memory.high": mib64}, 64 * mib},
		"memory.high is 0, to have memory reclaimed":    {"0::/high\n", host, map[string]string{"high/memory.max": mib64, "high/memory.high": "0\n"}, 64 * mib},
		"memory.high is 0, and the parent has a limit":  {"0::/p/high\n", host, map[string]string{"p/high/memory.max": none, "p/high/memory.high": "0\n", "p/memory.max": mib64}, 64 * mib},
		"both are 0, and nothing else":                  {"0::/high\n", host, map[string]string{"high/memory.max": "0\n", "high/memory.high": "0\n"}, 0},
		"no limit":                                      {"0::/free\n", host, map[string]string{"free/memory.max": none, "free/memory.high": none, "other/memory.max": mib48}, 0},
		"the root, which has no such files":             {"0::/\n", host, map[string]string{"other/memory.max": mib48}, 0},
		"a name with an escape of systemd, and a space": {"0::/system.slice/system-my\\x2dgroup one.slice\n", host, map[string]string{`system.slice/system-my\x2dgroup one.slice/memory.max`: mib64}, 64 * mib},
		"the same, mounted over the host's": {
			"0::/system.slice/system-my\\x2dgroup one.slice\n",
			host + `33 26 0:23 /system.slice/system-my\134x2dgroup\040one.slice /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot` + "\n",
			map[string]string{"memory.max": mib64, "memory.high": none}, 64 * mib,
		},
		"another cgroup is mounted, with one of the same path": {
			"0::/box\n", system + "30 29 0:23 /other /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
			map[string]string{"memory.max": none, "box/memory.max": mib48}, 0,
		},

		"a container": {"0::/\n", container, map[string]string{"memory.max": mib64, "memory.high": none}, 64 * mib},
		"a container whose pod alone has a limit": {"0::/\n", container, map[string]string{"memory.max": none, "memory.high": none}, 0},
		"a container, below its root":             {"0::/init.scope\n", container, map[string]string{"memory.max": mib64, "memory.high": none}, 64 * mib},
		"moved out of a container": {
			"0::/../other\n", container,
			map[string]string{"memory.max": mib64, "memory.high": none}, 64 * mib,
		},
		"moved out of a container, which has one of that name": {
			"0::/../other\n", container,
			map[string]string{"memory.max": mib64, "memory.high": none, "other/memory.max": "33554432\n"}, 64 * mib,
		},
		"moved further out": {
			"0::/../../other\n", container,
			map[string]string{"memory.max": none, "memory.high": none, "other/memory.max": "33554432\n"}, 0,
		},

		"a namespace that sees the host's mount":          {"0::/\n", above1, map[string]string{"box/memory.max": mib64, "other/memory.max": mib48}, 0},
		"the same, two levels":                            {"0::/\n", above2, map[string]string{"parent/child/memory.max": none, "parent/memory.max": mib64, "other/memory.max": mib48}, 0},
		"below it, and the host has one of that name":     {"0::/other\n", above1, map[string]string{"box/memory.max": mib64, "other/memory.max": mib48}, 0},
		"the same, two levels below":                      {"0::/init.scope\n", above2, map[string]string{"init.scope/memory.max": mib48, "parent/memory.max": mib64}, 0},
		"above it, where the host's mount shows it":       {"0::/../other\n", above1, map[string]string{"box/memory.max": mib64, "other/memory.max": mib48}, 48 * mib},
		"above it, two levels":                            {"0::/../../other\n", above2, map[string]string{"other/memory.max": mib48}, 48 * mib},
		"above it, two levels, where it may be another's": {"0::/../other\n", above2, map[string]string{"other/memory.max": mib48}, 0},

		"v1 beside v2": {
			"1:memory:/par/child\n0::/box\n", hybrid,
			map[string]string{"memory/par/child/memory.limit_in_bytes": noneV1, "memory/par/memory.limit_in_bytes": mib64, "memory/memory.limit_in_bytes": noneV1}, 64 * mib,
		},
		"v1 beside v2, a namespace that sees the host's mounts": {
			"1:memory:/\n0::/\n", hybridAbove,
			map[string]string{"memory/box/memory.limit_in_bytes": mib64, "memory/memory.limit_in_bytes": noneV1}, 0,
		},
		"v1 beside v2, below it, and the host has one of that name": {
			"1:memory:/other\n0::/other\n", hybridAbove,
			map[string]string{"memory/other/memory.limit_in_bytes": mib48, "memory/memory.limit_in_bytes": noneV1}, 0,
		},
	} {
		root := fstest.MapFS{
			"proc/self/cgroup":    &fstest.MapFile{Data: []byte(test.cgroup)},
			"proc/self/mountinfo": &fstest.MapFile{Data: []byte(test.mountinfo)},
		}
		for name, content := range test.files {
			root["sys/fs/cgroup/"+name] = &fstest.MapFile{Data: []byte(content)}
		}
		want, source := test.want, "cgroup"
		if want == 0 {
			want, source = Default, "default"
		}
		if got := Find(root, func(string) string { return "" }, math.MaxInt64); got.Bytes != want || got.Source != source {
			t.Errorf("%s: %d MiB from %q, want %d MiB from %q", name, got.Bytes>>20, got.Source, want>>20, source)
		}
	}
}
