# Cloud Scheduler asks from one place, for what an uptime check costs in a thousand times: https://cloud.google.com/scheduler/pricing

locals {
  # One request is about 100 targets at most. Where there are more, each group has a job, and each target without one; they run side by side.
  requests = [for event in local.many ? module.targets.invocations : [{}] : join("&", concat([for key, name in event : "${key}=${name}"], ["format=json"]))]
  log      = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.service}\" AND resource.labels.location=\"${var.region}\""
  channels = concat(sort(var.notification_channels), [for channel in google_monitoring_notification_channel.schedule : channel.name])
}

resource "google_service_account" "schedule" {
  count = var.schedule_minutes == null ? 0 : 1

  project      = var.project_id
  account_id   = "${var.name}-sched"
  display_name = "${var.name}: who asks on a schedule"
}

resource "google_cloud_run_v2_service_iam_member" "schedule" {
  count = length(google_service_account.schedule)

  project  = var.project_id
  location = var.region
  name     = local.service
  role     = "roles/run.invoker"
  member   = google_service_account.schedule[0].member
}

resource "google_cloud_scheduler_job" "check" {
  count = var.schedule_minutes == null ? 0 : length(local.requests)

  project     = var.project_id
  region      = var.region
  name        = count.index == 0 ? var.name : "${var.name}-${count.index + 1}"
  description = "Asks ${var.name} for ${local.requests[count.index]}"
  schedule    = var.schedule_minutes == 60 ? "0 * * * *" : "*/${var.schedule_minutes} * * * *"
  time_zone   = "Etc/UTC"
  # The least is 15 s: https://cloud.google.com/scheduler/docs/reference/rest/v1/projects.locations.jobs
  attempt_deadline = "${max(15, ceil(local.budget + 5))}s"

  # A check that comes late is worth nothing: the next one is on its way.
  retry_config {
    retry_count = 0
  }

  http_target {
    http_method = "GET"
    uri         = "${local.uri}${var.path}?${local.requests[count.index]}"

    oidc_token {
      service_account_email = google_service_account.schedule[0].email
      audience              = local.uri
    }
  }

  depends_on = [google_cloud_run_v2_service_iam_member.schedule]
}

resource "google_monitoring_notification_channel" "schedule" {
  for_each = var.schedule_minutes == null ? [] : var.alert_emails

  project      = var.project_id
  display_name = "${var.name}, schedule: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
}

# The program warns in its log of what is configured and does not serve.
resource "google_monitoring_alert_policy" "schedule_down" {
  count = var.schedule_minutes == null ? 0 : 1

  project               = var.project_id
  display_name          = "${var.name}: not serving, by its log"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.channels

  conditions {
    display_name = "the log tells of a server that does not say SERVING"
    condition_matched_log {
      filter = "${local.log} AND severity>=WARNING AND jsonPayload.health_status:* AND jsonPayload.health_status!=\"SERVING\""
      label_extractors = {
        target   = "EXTRACT(jsonPayload.target)"
        upstream = "EXTRACT(jsonPayload.upstream)"
        service  = "EXTRACT(jsonPayload.grpc_service)"
        status   = "EXTRACT(jsonPayload.health_status)"
      }
    }
  }

  # A policy on a log needs a limit: https://cloud.google.com/logging/docs/alerting/log-based-alerts
  alert_strategy {
    notification_rate_limit {
      period = "300s"
    }
    auto_close = "1800s"
  }

  documentation {
    subject = "${local.upstream} is not SERVING (${var.name})"
    content = <<-EOT
      $${log.extracted_label.target} $${log.extracted_label.upstream} says $${log.extracted_label.status} about $${log.extracted_label.service} (empty is the whole server).

      What to do: look into the log of ${var.name} for this warning (`${local.log}`). It has the phase, the cause and
      every attempt.

      More: the project's docs/google-cloud.md, When an alert comes.
    EOT
  }
}

resource "google_monitoring_alert_policy" "schedule_silent" {
  count = var.schedule_minutes == null ? 0 : 1

  project               = var.project_id
  display_name          = "${var.name}: nobody asks"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "no request for three times the schedule"
    condition_absent {
      filter   = "metric.type=\"run.googleapis.com/request_count\" AND resource.type=\"cloud_run_revision\" AND resource.label.service_name=\"${local.service}\" AND resource.label.location=\"${var.region}\""
      duration = "${max(300, 180 * var.schedule_minutes)}s" # Cloud Run's metrics come up to 4 minutes late
      aggregations {
        alignment_period     = "${60 * var.schedule_minutes}s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
      trigger {
        count = 1
      }
    }
  }

  documentation {
    subject = "Nobody checks ${local.upstream} (${var.name})"
    content = <<-EOT
      Nobody asks ${var.name} any more, so nobody knows how ${local.upstream} is.

      What to do: look at the last run of the jobs ${var.name} in Cloud Scheduler. 403 is a lost roles/run.invoker of
      ${var.name}-sched; a job that is paused or gone comes back with `terraform apply`.

      More: the project's docs/google-cloud.md, When an alert comes.
    EOT
  }
}
