[{"a", %{
  rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64},
  lifecycle: "job", retries: 2, timeout_s: 30, stop_signal: "INT", stop_timeout_s: 3, disk_mb: 64,
  labels: %{"app" => "web", "example.com/tier" => ""},
  ready: %{http: %{port: 4000, path: "/health"}, timeout_s: 5},
  warm_pool: %{min: 1, max: 2, stage: "init"}}},
 {"bare", %{boot: "raw", kernel: "tiny", resources: %{vcpu: 1, mem_mb: 16}, lifecycle: "service"}}]