# The program's own verdict is what counts: status 200 and SERVING, told by the service agent of Cloud Monitoring.
resource "google_monitoring_uptime_check_config" "service" {
  for_each = var.paths

  project      = var.project_id
  display_name = "${var.name}: ${each.key}"
  period       = "${var.schedule.period}s"
  timeout      = "${var.schedule.timeout}s"
  # None are all.
  selected_regions = length(var.schedule.regions) == 0 ? null : sort(var.schedule.regions)

  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project_id
      host       = var.host
    }
  }

  http_check {
    request_method = "GET"
    path           = each.value
    port           = 443
    use_ssl        = true
    validate_ssl   = true

    accepted_response_status_codes {
      status_value = 200
    }

    # Cloud Run lets in who has roles/run.invoker: https://cloud.google.com/monitoring/uptime-checks
    service_agent_authentication {
      type = "OIDC_TOKEN"
    }
  }

  # Only the first matcher counts. The content is JSON itself, so the text has its quotes:
  # https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.uptimeCheckConfigs#ContentMatcher
  content_matchers {
    content = jsonencode("SERVING")
    matcher = "MATCHES_JSON_PATH"
    json_path_matcher {
      json_path    = "$.status"
      json_matcher = "EXACT_MATCH"
    }
  }
}

resource "google_monitoring_notification_channel" "email" {
  for_each = var.alert_emails

  project      = var.project_id
  display_name = "${var.name}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
}

locals {
  channels = concat(
    sort(var.notification_channels),
    [for channel in google_monitoring_notification_channel.email : channel.name],
  )
  # The host tells these checks from others, however many services there are: two policies do for all.
  passed = join(" AND ", [
    "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\"",
    "resource.type=\"uptime_url\"",
    "resource.label.host=\"${var.host}\"",
  ])
  # What this deployment logs: another one, also of the same name in another region, is none of its.
  log = join(" AND ", [
    "resource.type=\"cloud_run_revision\"",
    "resource.labels.service_name=\"${var.service}\"",
    "resource.labels.location=\"${var.region}\"",
  ])
}

resource "google_monitoring_alert_policy" "down" {
  project               = var.project_id
  display_name          = "${var.name}: not serving"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.channels

  conditions {
    display_name = "two or more places see no SERVING"
    condition_threshold {
      filter = local.passed
      # One place alone may have a network trouble of its own.
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "60s"
      aggregations {
        # Each place's latest result, also where one comes late.
        alignment_period     = "${2 * var.schedule.period}s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["metric.label.check_id"]
      }
      trigger {
        count = 1
      }
    }
  }

  documentation {
    subject = "${var.upstream} is not SERVING (${var.name})"
    content = <<-EOT
      ${var.upstream} does not say SERVING, or ${var.name} does not answer. Check: $${metric.label.check_id}

      What to do: look into the log of ${var.name} for the latest warning (`${local.log}`). It has the phase, the
      cause and every attempt; the header `Grpc-Health-Evidence` of an answer names its line by `evidence`. Without any
      line the checkers do not get in, or the program does not start.

      More: the project's docs/google-cloud.md, When an alert comes.
    EOT
  }
}

resource "google_monitoring_alert_policy" "no_data" {
  project               = var.project_id
  display_name          = "${var.name}: no results"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "no place has reported a result"
    condition_absent {
      filter = local.passed
      # Three results missing; the least is 120 s, in whole minutes:
      # https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alertPolicies#MetricAbsence
      duration = "${3 * var.schedule.period}s"
      aggregations {
        alignment_period     = "${var.schedule.period}s"
        per_series_aligner   = "ALIGN_COUNT"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = ["metric.label.check_id"]
      }
      trigger {
        count = 1
      }
    }
  }

  documentation {
    subject = "Nobody checks ${var.upstream} (${var.name})"
    content = <<-EOT
      Nobody checks ${var.upstream} by way of ${var.name} any more, so nobody knows how it is.

      What to do: look whether the uptime checks ${var.name} are still there and enabled, and `terraform plan`. If they
      are, Cloud Monitoring has a fault: see https://status.cloud.google.com.

      More: the project's docs/google-cloud.md, When an alert comes.
    EOT
  }
}

# The uptime check sees the certificate of the URL, which is Google's, and never the upstream's. So the program's log tells of that, once
# an hour from 14 days on.
resource "google_monitoring_alert_policy" "certificate" {
  count = var.certificate_days == null ? 0 : 1

  project               = var.project_id
  display_name          = "${var.name}: a certificate ends soon"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "the log tells of a certificate that ends in less than ${var.certificate_days} days"
    condition_matched_log {
      filter = "${local.log} AND jsonPayload.certificate_days_left < ${var.certificate_days}"
      label_extractors = merge({
        certificate = "EXTRACT(jsonPayload.certificate)"
        days_left   = "EXTRACT(jsonPayload.certificate_days_left)"
      }, var.many ? { target = "EXTRACT(jsonPayload.target)" } : {})
    }
  }

  # A policy on a log needs a limit: https://cloud.google.com/logging/docs/alerting/log-based-alerts
  alert_strategy {
    notification_rate_limit {
      period = "86400s"
    }
    auto_close = "172800s" # the log tells it each hour, as long as somebody checks
  }

  documentation {
    subject = "A certificate of ${var.upstream} ends soon (${var.name})"
    content = <<-EOT
      The certificate of ${var.upstream} (`upstream`), or the one that ${var.name} shows to it (`client`), ends soon or has
      ended: $${log.extracted_label.certificate}, in days: $${log.extracted_label.days_left}${var.many ? "; target: $${log.extracted_label.target}" : ""}

      What to do: renew `upstream` on the server, `client` in its secret. Where something renews it automatically, that
      has stopped.

      More: the project's docs/google-cloud.md, When an alert comes.
    EOT
  }
}

resource "google_monitoring_dashboard" "health" {
  project = var.project_id
  dashboard_json = jsonencode({
    displayName = "${var.name}: gRPC health"
    mosaicLayout = {
      columns = 48
      tiles = concat([
        for i, chart in [
          {
            title   = "Checks passed (fraction of places)"
            filter  = local.passed
            aligner = "ALIGN_FRACTION_TRUE"
            reducer = "REDUCE_MEAN"
          },
          {
            title   = "Time to answer the checkers (milliseconds)"
            filter  = replace(local.passed, "check_passed", "request_latency")
            aligner = "ALIGN_MAX"
            reducer = "REDUCE_MAX"
          },
          ] : {
          xPos   = 24 * i
          width  = 24
          height = 16
          widget = {
            title = chart.title
            xyChart = {
              dataSets = [{
                plotType = "LINE"
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter = chart.filter
                    aggregation = {
                      alignmentPeriod    = "${var.schedule.period}s"
                      perSeriesAligner   = chart.aligner
                      crossSeriesReducer = chart.reducer
                      groupByFields      = ["metric.label.check_id"]
                    }
                  }
                }
              }]
            }
          }
        }
        ], [
        # A row for each check, whatever their number.
        for title in var.many ? ["Checks passed, each by its ID (fraction of places)"] : [] : {
          yPos   = 16
          width  = 48
          height = 4 + length(var.paths)
          widget = {
            title = title
            timeSeriesTable = {
              metricVisualization = "BAR"
              dataSets = [{
                timeSeriesQuery = {
                  timeSeriesFilter = {
                    filter = local.passed
                    aggregation = {
                      alignmentPeriod    = "${var.schedule.period}s"
                      perSeriesAligner   = "ALIGN_FRACTION_TRUE"
                      crossSeriesReducer = "REDUCE_MEAN"
                      groupByFields      = ["metric.label.check_id"]
                    }
                  }
                }
              }]
            }
          }
        }
      ])
    }
  })
}
