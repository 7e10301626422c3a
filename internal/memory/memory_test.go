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
