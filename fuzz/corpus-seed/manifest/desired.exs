vms.exs
[
  # High-traffic web service
  {"web-api", "production",
   %{
     rootfs: "rootfs-web.ext4",
     kernel: "vmlinux",
     cmd: ["/app/bin/server"],
     env: %{
       MIX_ENV: "prod",
       DATABASE_URL: "postgresql://localhost/myapp"
     },
     resources: %{vcpu: 2, mem_mb: 512},
     lifecycle: "service",
     warm_pool: %{min: 2, max: 5}  # 2 warm VMs for instant scaling
   }},

  # Background Kafka consumer
  {"kafka-consumer", "analytics",
   %{
     rootfs: "rootfs-worker.ext4",
     kernel: "vmlinux",
     cmd: ["/app/bin/consumer"],
     env: %{KAFKA_BROKERS: "broker1:9092"},
     resources: %{vcpu: 1, mem_mb: 256},
     lifecycle: "daemon",
     warm_pool: %{min: 1, max: 3}  # 1 warm for quick recovery
   }},

  # Lambda function
  {"image-resizer", "media",
   %{
     rootfs: "rootfs-lambda.ext4",
     kernel: "vmlinux",
     cmd: ["/app/bin/resize"],
     env: %{S3_BUCKET: "uploads"},
     resources: %{vcpu: 1, mem_mb: 128},
     lifecycle: "job"
     # No warm_pool - cold starts acceptable
   }}
]
