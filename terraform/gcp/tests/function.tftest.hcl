mock_provider "google" {
  source = "../mocks/google"
}

mock_provider "archive" {
  source = "../mocks/archive"
}

variables {
  project_id = "my-project"
  region     = "europe-west1"
  grpc_addr  = "grpc.example.com:443"
}

run "by_default" {
  # The function.
  assert {
    condition     = length(google_cloud_run_v2_service.proxy) == 0 && output.load_balancer_ip == null
    error_message = "Without an image the function is deployed, and no service beside it."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].build_config[0].runtime == "go126" && google_cloudfunctions2_function.health[0].build_config[0].entry_point == "HealthCheck"
    error_message = "The build pack needs a runtime of go.mod's release, and the name that the source registers."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].build_config[0].source[0].storage_source[0].bucket == google_storage_bucket.source[0].name && google_cloudfunctions2_function.health[0].build_config[0].source[0].storage_source[0].object == google_storage_bucket_object.source[0].name
    error_message = "The function is built from the object that was uploaded."
  }
  assert {
    condition     = google_storage_bucket_object.source[0].name == "0123456789abcdef.zip" && google_storage_bucket_object.source[0].source == data.archive_file.source[0].output_path && google_storage_bucket_object.source[0].bucket == google_storage_bucket.source[0].name
    error_message = "A function is deployed again where its object's name changes: the name is the content's."
  }
  assert {
    condition     = google_storage_bucket.source[0].public_access_prevention == "enforced" && google_storage_bucket.source[0].uniform_bucket_level_access
    error_message = "Nobody outside reads the source: the bucket refuses public access."
  }
  assert {
    condition     = google_storage_bucket.source[0].force_destroy
    error_message = "A bucket with objects is not destroyed; this one holds only what can be made again."
  }
  assert {
    condition     = google_storage_bucket.source[0].name == "my-project-grpc-health-source"
    error_message = "Buckets' names are global: the project's is in it."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].service_account_email == google_service_account.runtime.email
    error_message = "Without its own account a function runs as the default one, which may do much."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].ingress_settings == "ALLOW_ALL"
    error_message = "Uptime checkers come from outside: IAM keeps others out, not the ingress."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].timeout_seconds == 3
    error_message = "The platform's deadline, less 200 ms, must not cut a check of 1 s and 1 s short."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].max_instance_request_concurrency == 80 && google_cloudfunctions2_function.health[0].service_config[0].available_cpu == "1"
    error_message = "More than one request at once in an instance wants a whole CPU."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].available_memory == "256Mi"
    error_message = "Memory is billed: what the program needs is said, not left to a default."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].min_instance_count == 0 && google_cloudfunctions2_function.health[0].service_config[0].max_instance_count == 3
    error_message = "Nothing runs when nobody asks. Instances have a bound, and so has the bill."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].environment_variables == tomap(local.environment)
    error_message = "The settings are the function's environment."
  }
  assert {
    condition     = length(google_cloudfunctions2_function.health[0].service_config[0].secret_volumes) == 0 && length(google_cloudfunctions2_function.health[0].service_config[0].direct_vpc_network_interface) == 0
    error_message = "Nothing is mounted or attached that nothing asks for."
  }
  assert {
    condition     = local.service == google_cloudfunctions2_function.health[0].name
    error_message = "roles/run.invoker is granted on the Cloud Run service, which has the function's name."
  }

  # Where, and by what name.
  assert {
    condition     = google_cloudfunctions2_function.health[0].project == "my-project" && google_storage_bucket.source[0].project == "my-project" && google_cloudfunctions2_function.health[0].location == "europe-west1" && google_storage_bucket.source[0].location == "europe-west1"
    error_message = "Function and source are in project_id and region: the provider's own may be others."
  }
  assert {
    condition     = strcontains(google_cloudfunctions2_function.health[0].description, "grpc.example.com:443") && strcontains(google_service_account.runtime.display_name, "grpc-health")
    error_message = "The console says what this is for."
  }
}

run "upload" {
  command = plan
  assert {
    condition     = endswith(data.archive_file.source[0].source_dir, "/../..")
    error_message = "By default the source is the repository that the module is in."
  }
  assert {
    condition     = alltrue([for glob in ["**/.git", "**/*_test.go", "**/*.pem", "**/*.zip", "lambda", "test", "terraform"] : contains(data.archive_file.source[0].excludes, glob)])
    error_message = "What .gcloudignore names is not uploaded, as with gcloud: keys and state above all."
  }
  assert {
    condition     = !anytrue([for glob in data.archive_file.source[0].excludes : glob == "" || startswith(glob, "#") || startswith(glob, "/") || endswith(glob, "/")])
    error_message = "The archive takes globs of relative paths, not the syntax of .gcloudignore."
  }
  assert {
    condition     = data.archive_file.source[0].type == "zip" && data.archive_file.source[0].output_file_mode == "0644"
    error_message = "The same source is the same zip whatever the umask, or every plan would deploy."
  }
}

run "private_upstream" {
  variables {
    settings = { GRPC_HEALTH_TLS = true }
    secrets = {
      GRPC_HEALTH_CA_CERT     = { secret = "upstream-ca" }
      GRPC_HEALTH_CLIENT_CERT = { secret = "client-cert", version = "3" }
      GRPC_HEALTH_CLIENT_KEY  = { secret = "client-key" }
    }
    vpc                   = { network = "backend", subnetwork = "functions", tags = ["health"] }
    build_service_account = "projects/my-project/serviceAccounts/build@my-project.iam.gserviceaccount.com"
    min_instances         = 1
    max_instances         = 1
    concurrency           = 10
    connect_timeout       = 2.5
    uptime_check          = { timeout = 20 }
  }
  assert {
    condition = [for volume in google_cloudfunctions2_function.health[0].service_config[0].secret_volumes : [volume.mount_path, volume.project_id, volume.secret, volume.versions[0].version, volume.versions[0].path]] == [
      ["/secrets/ca-cert", "my-project", "upstream-ca", "latest", "value"],
      ["/secrets/client-cert", "my-project", "client-cert", "3", "value"],
      ["/secrets/client-key", "my-project", "client-key", "latest", "value"],
    ]
    error_message = "A mounted secret shadows its directory: each has one of its own."
  }
  assert {
    condition     = alltrue([for mount in local.mounts : length([for path in values(local.environment) : path if strcontains(path, "/secrets/")]) == length(local.mounts)])
    error_message = "Each mounted secret is read by a setting."
  }
  assert {
    condition     = one(google_cloudfunctions2_function.health[0].service_config[0].direct_vpc_network_interface).network == "backend" && one(google_cloudfunctions2_function.health[0].service_config[0].direct_vpc_network_interface).subnetwork == "functions" && one(google_cloudfunctions2_function.health[0].service_config[0].direct_vpc_network_interface).tags == tolist(["health"])
    error_message = "A private upstream is reached through an interface in its network; firewalls know it by its tags."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].direct_vpc_egress == "VPC_EGRESS_PRIVATE_RANGES_ONLY"
    error_message = "Only private addresses go through the VPC, so that Google's and public ones need no NAT."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].build_config[0].service_account == "projects/my-project/serviceAccounts/build@my-project.iam.gserviceaccount.com"
    error_message = "An organization whose default account may not build names one that may."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].timeout_seconds == 5
    error_message = "The deadline is whole seconds above the budgets."
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].min_instance_count == 1 && google_cloudfunctions2_function.health[0].service_config[0].max_instance_count == 1 && google_cloudfunctions2_function.health[0].service_config[0].max_instance_request_concurrency == 10
    error_message = "Scaling is as asked for."
  }
}

run "all_traffic_through_the_vpc" {
  variables {
    vpc = { network = "backend", all_traffic = true }
  }
  assert {
    condition     = google_cloudfunctions2_function.health[0].service_config[0].direct_vpc_egress == "VPC_EGRESS_ALL_TRAFFIC"
    error_message = "An upstream that admits the NAT's address only is asked through the VPC."
  }
}

run "refused" {
  command = plan
  variables {
    source_dir            = "./tests"                                  # not the repository
    build_service_account = "build@my-project.iam.gserviceaccount.com" # an address alone
    path                  = "/health"                                  # of Cloud Run, as the rest
    http2                 = true
    deletion_protection   = true
    metrics_sidecar       = true
    load_balancer         = { domain = "health.example.com", client_cas = ["-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"] }
  }
  expect_failures = [
    var.source_dir, var.build_service_account, var.path, var.http2, var.deletion_protection, var.metrics_sidecar, var.load_balancer,
  ]
}

run "setting_of_cloud_run" {
  command = plan
  variables {
    settings = { GRPC_HEALTH_SHUTDOWN_GRACE = "5s" }
  }
  expect_failures = [var.settings]
}
