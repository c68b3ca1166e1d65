# Alarms. KongCloudTrailRelay is what the relay itself measures; it writes its metrics with each pass, at least one an
# hour, whether or not anybody used the Admin API. So a quiet weekend is a row of zeros, and silence is a dead schedule.

locals {
  relay_alarms = var.alarms ? local.lambda : 0
  cache_alarms = var.alarms && !var.cache_serverless ? 2 : 0

  relay_metrics = { namespace = "KongCloudTrailRelay", dimensions = { Source = var.source_name } }

  # Minimum where the last word counts: a value that was high and has come down within the hour is no alarm.
  # missing = "breaching" rings for silence; "ignore" keeps the last state, so that silence neither rings nor calms.
  age_alarms = {
    pass-age = {
      metric      = "LastCompletePassAge"
      statistic   = "Minimum"
      threshold   = var.alarm_pass_age_seconds
      periods     = 2
      missing     = "breaching"
      description = "No complete pass over Kong's audit log for ${var.alarm_pass_age_seconds} s, or no run at all. Look at the schedule and at the relay's log. Rings once after the first apply until the first pass is done."
    }
    undelivered-age = {
      metric      = "OldestUndeliveredAge"
      statistic   = "Minimum"
      threshold   = var.alarm_undelivered_age_seconds
      periods     = 1
      missing     = "ignore"
      description = "An audit entry has waited for ${var.alarm_undelivered_age_seconds} s to be accepted. The destination refuses or is away."
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
    dead-letters = {
      metric      = "DeadLetters"
      statistic   = "Minimum"
      threshold   = 0
      periods     = 1
      missing     = "ignore"
      description = "The destination has refused entries for good. relay dead list shows them and why."
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

# Three: one event with its two retries. A single error heals by itself.
resource "aws_cloudwatch_metric_alarm" "errors" {
  count = local.relay_alarms

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-errors"
  alarm_description   = "The function has failed three times within an hour: an event with all its retries."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = var.resource_name }
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

# A burst of triggers is throttled for a moment and that is as meant. A quarter of an hour of it is not.
resource "aws_cloudwatch_metric_alarm" "throttles" {
  count = local.relay_alarms

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-throttles"
  alarm_description   = "Invocations have been throttled for 15 minutes. Runs hang, or the account's concurrency is used up."
  namespace           = "AWS/Lambda"
  metric_name         = "Throttles"
  dimensions          = { FunctionName = var.resource_name }
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.resource_tags

  depends_on = [aws_lambda_function.relay]
}

resource "aws_cloudwatch_metric_alarm" "failed_events" {
  count = local.relay_alarms

  region              = var.aws_region
  alarm_name          = "${var.resource_name}-failed-events"
  alarm_description   = "Events that failed for good are in the queue ${var.resource_name}-failed. The next complete pass delivers what they announced."
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
