# Alarms. KongCloudTrailRelay is what the relay itself measures, on either host; it writes its metrics at least once an
# hour, whether or not anybody used the Admin API. So a quiet weekend is a row of zeros, and silence is a dead schedule.

locals {
  relay_alarms  = var.alarms ? 1 : 0
  lambda_alarms = var.alarms ? local.lambda : 0
  cache_alarms  = var.alarms && !var.cache_serverless ? 2 : 0

  relay_metrics = { namespace = "KongCloudTrailRelay", dimensions = { Source = var.source_name } }

  # Minimum, because a value that was high and has come down within the hour is no alarm.
  # missing = "breaching" takes silence for trouble; "ignore" keeps the last state whatever silence means.
  age_alarms = {
    pass-age = {
      metric      = "LastCompletePassAge"
      statistic   = "Minimum"
      threshold   = var.alarm_pass_age_seconds
      periods     = 2
      missing     = "breaching"
      description = "No complete pass over Kong's audit log for ${var.alarm_pass_age_seconds} s, or no run at all. Look at the schedule and at the relay's log. Goes off once after the first apply until the first pass is done."
    }
    undelivered-age = {
      metric      = "OldestUndeliveredAge"
      statistic   = "Minimum"
      threshold   = var.alarm_undelivered_age_seconds
      periods     = 1
      missing     = "ignore"
      description = "An audit entry has waited for ${var.alarm_undelivered_age_seconds} s to be accepted. The destination refuses it or is down."
    }
    undelivered-half-retention = {
      metric      = "OldestUndeliveredAge"
      statistic   = "Minimum"
      threshold   = floor(var.kong_record_ttl / 2)
      periods     = 1
      missing     = "ignore"
      description = "An audit entry has waited for half of the time that Kong keeps it. At the other half it is lost."
    }
    pass-half-retention = {
      metric      = "LastCompletePassAge"
      statistic   = "Minimum"
      threshold   = floor(var.kong_record_ttl / 2)
      periods     = 1
      missing     = "ignore"
      description = "No complete pass for half of the time that Kong keeps an entry. At the other half entries are lost unread."
    }
    announced-missing = {
      metric      = "AnnouncedMissing"
      statistic   = "Minimum"
      threshold   = 0
      periods     = 1
      missing     = "ignore"
      description = "Kong answered requests that its audit log does not show. Look at audit_log and audit_log_ignore_* of kong.conf and into Kong's error log; relay status lists the ids."
    }
    dead-letters = {
      metric      = "DeadLetters"
      statistic   = "Minimum"
      threshold   = 0
      periods     = 1
      missing     = "ignore"
      description = "The destination has rejected entries permanently. relay dead list shows them and why."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "relay" {
  for_each = local.relay_alarms == 1 ? local.age_alarms : {}

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = local.relay_metrics.namespace
  metric_name         = each.value.metric
  dimensions          = local.relay_metrics.dimensions
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  period              = 3600
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.resource_tags
}

# Three: one event with its two retries. A single error is made up for by the next pass. Lambda counts failed runs, the
# relay on Fargate failed passes.
resource "aws_cloudwatch_metric_alarm" "errors" {
  count = local.relay_alarms

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-errors"
  alarm_description   = var.host == "lambda" ? "The function has failed three times within an hour: an event with all its retries." : "Three passes have failed within an hour."
  namespace           = var.host == "lambda" ? "AWS/Lambda" : local.relay_metrics.namespace
  metric_name         = var.host == "lambda" ? "Errors" : "PassFailures"
  dimensions          = var.host == "lambda" ? { FunctionName = var.resource_name } : local.relay_metrics.dimensions
  statistic           = "Sum"
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 3
  period              = 3600
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.resource_tags

  depends_on = [aws_lambda_function.relay]
}

# A busy gateway's triggers are throttled while two runs are on, and retried: that is as meant. What is wrong is to be
# throttled with no run at all. A run takes 15 minutes at the most, so in 20 minutes a healthy relay has begun one.
resource "aws_cloudwatch_metric_alarm" "throttles" {
  count = local.lambda_alarms

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-throttles"
  alarm_description   = "Invocations have been throttled for 20 minutes, and none has run: the concurrency of the account is used up."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 4
  datapoints_to_alarm = 4
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.resource_tags

  metric_query {
    id          = "starved"
    expression  = "IF(FILL(invocations, 0) < 1, FILL(throttles, 0), 0)"
    label       = "Throttled while nothing ran"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { invocations = "Invocations", throttles = "Throttles" }

    content {
      id          = metric_query.key
      return_data = false

      metric {
        namespace   = "AWS/Lambda"
        metric_name = metric_query.value
        dimensions  = { FunctionName = var.resource_name }
        period      = 300
        stat        = "Sum"
      }
    }
  }

  depends_on = [aws_lambda_function.relay]
}

resource "aws_cloudwatch_metric_alarm" "failed_events" {
  count = local.lambda_alarms

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-failed-events"
  alarm_description   = "Events whose retries are exhausted are in the queue ${var.resource_name}-failed. The next complete pass delivers what they announced."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = aws_sqs_queue.failed[0].name }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching" # SQS stops measuring a queue that nobody uses
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.resource_tags
}

# A full ledger forgets, and the relay repeats.
resource "aws_cloudwatch_metric_alarm" "ledger_memory" {
  count = local.cache_alarms

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-ledger-memory-${count.index + 1}"
  alarm_description   = "A node of the ledger is nearly full. Take a larger cache_node_type."
  namespace           = "AWS/ElastiCache"
  metric_name         = "DatabaseMemoryUsagePercentage"
  dimensions          = { CacheClusterId = format("%s-%03d", local.ledger_id, count.index + 1) }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 80
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "missing"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.resource_tags

  depends_on = [aws_elasticache_replication_group.ledger]
}
